"""What is seen in a photo, and whether two damages are one: pure functions of pixels and values, no I/O.

decode -> detect -> regions -> embed, features -> `perceive`; two sightings -> verify -> decide.
Images are numpy uint8 (height, width, 3) in OpenCV's order, BGR.
"""

import os

DEFAULT_MAX_PIXELS = 50_000_000

# OpenCV reads its limit once, while it is imported; `decode.check_pixel_limit` proves that it holds. The
# header is checked first, by `formats`: this is the second wall.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(DEFAULT_MAX_PIXELS))

import cv2  # noqa: E402

# Photos run in parallel, one thread each: OpenCV's own pool would only contend with them.
cv2.setNumThreads(1)
