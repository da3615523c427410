"""Reads photos from files for commands that look at them one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from damagewatch.cli import output
from damagewatch.cli.failure import Failure
from damagewatch.domain import ClaimImage, Refused
from damagewatch.folders import PhotoFile, photos_in
from damagewatch.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from damagewatch.vision.models import Models
    from damagewatch.vision.perceive import Perceived


def files_of(paths: Sequence[Path]) -> list[PhotoFile]:
    """The photos of files and folders; there must be one at least."""
    files = list(photos_in(paths))
    if not files:
        raise Failure(f"no photos in {', '.join(str(path) for path in paths)}")
    return files


def fail_if_any(failed: int) -> None:
    """Exit code 1 where photos were refused."""
    if failed:
        raise Failure(f"{failed} of the photos could not be read")


class Looker:
    """Looks at photos with the shipped models; what is refused is told and left out."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Loads nothing until it is asked for.

        Args:
            settings: those of the environment where None.
        """
        self.settings = settings or Settings()
        self._models: Models | None = None

    @property
    def models(self) -> Models:
        """Loaded when first asked for."""
        if self._models is None:
            from damagewatch.assembly import load_models

            self._models = load_models(self.settings)
        return self._models

    def __call__(self, file: PhotoFile) -> Perceived | None:
        """What is seen in a photo; None where it is refused."""
        from damagewatch.vision.perceive import Perception

        perception = Perception(self.models, self.settings.limits.limits())
        try:
            content = file.read(self.settings.limits.photo_bytes)
            image = ClaimImage(self.settings.tenant, file.claim_id, file.photo_id, content)
            return perception.perceive(image)
        except Refused as refused:
            output.note(f"{file.path}: {refused.detail} ({refused.reason})")
            return None

    def pixels(self, file: PhotoFile) -> NDArray[np.uint8] | None:
        """The upright photo, uint8 (h, w, 3) BGR; None where it is refused."""
        from damagewatch.vision.decode import decode

        try:
            return decode(file.read(self.settings.limits.photo_bytes), self.settings.limits.limits()).image
        except Refused as refused:
            output.note(f"{file.path}: {refused.detail} ({refused.reason})")
            return None


def save_picture(path: Path, image: NDArray[np.uint8] | Any) -> None:
    """Writes a picture; its format is its ending's."""
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        written = cv2.imwrite(str(path), image)
    except cv2.error:
        written = False
    if not written:
        raise Failure(f"cannot write a picture to {path}: name it .png or .jpg", 2)
