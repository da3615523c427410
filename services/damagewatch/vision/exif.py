"""The orientation tag of EXIF metadata, read from a TIFF structure without trusting any of its lengths."""

from __future__ import annotations

import struct

_ORIENTATION_TAG = 0x0112
_SHORT = 3
_MAX_ENTRIES = 512


def orientation(tiff: bytes) -> int:
    """The EXIF orientation of a TIFF block, 1 to 8 (EXIF 2.32, 4.6.4.A); 1 where it is absent or broken.

    Args:
        tiff: from the byte-order mark on, without the `Exif\\0\\0` that JPEG puts before it.
    """
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
        for index in range(min(entries, _MAX_ENTRIES)):
            tag, kind, count, value = struct.unpack_from(f"{order}HHIH", tiff, directory + 2 + 12 * index)
            if tag == _ORIENTATION_TAG:
                return value if kind == _SHORT and count == 1 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
