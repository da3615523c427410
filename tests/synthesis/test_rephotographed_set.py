from pathlib import Path

import cv2
import numpy as np
import pytest

from damagewatch.domain import Reason
from damagewatch.synthesis.expectations import MANIFEST, DemoSet
from damagewatch.synthesis.rephotographed_set import rephotographed_set


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty photos in nested folders, among odd things."""
    rng = np.random.default_rng(0)
    for number in range(20):
        image = cv2.resize(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8), (160, 128))
        path = (
            tmp_path
            / "photos"
            / f"part {number % 3}"
            / f"bild-ü-{number}.{('jpg', 'png', 'webp', 'JPEG')[number % 4]}"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix.lower(), image)[1].tobytes())
    odd = tmp_path / "photos"
    (odd / "text.jpg").write_text("no photo")
    (odd / "empty.png").write_bytes(b"")
    (odd / "notes.txt").write_text("passed over")
    (odd / ".hidden.jpg").write_text("passed over")
    (odd / "folder.jpg").mkdir()
    (odd / "tiny.png").write_bytes(cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes())
    return odd


def test_a_claim_of_each_photo_and_a_share_again(folder: Path, tmp_path: Path) -> None:
    result = rephotographed_set(folder, tmp_path / "out", share=0.25)
    again = [photo for photo in result.photos if photo.path.is_relative_to(tmp_path / "out")]
    originals = [photo for photo in result.photos if photo not in again]
    assert len(originals) == 23  # twenty photos, the tiny one, two that are none
    assert len({photo.claim_id for photo in result.photos}) == len(result.photos)
    assert len(again) == round(0.25 * 21)
    assert not result.closed
    for alert in result.alerts:
        source, made = sorted(alert.pair, key=lambda key: key[0].startswith("again"))
        (path,) = (photo.path for photo in originals if photo.key == source)
        assert made in {photo.key for photo in again}
        assert path.suffix != ".txt"
        assert path.name != "tiny.png"
    assert len({key for alert in result.alerts for key in alert.pair}) == 2 * len(again)


def test_photos_are_left_as_they_are_and_named_by_their_paths(folder: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = rephotographed_set(folder, tmp_path / "out", share=1)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert DemoSet.load(tmp_path / "out") == result


def test_what_is_no_photo_must_be_refused_with_its_reason(folder: Path, tmp_path: Path) -> None:
    result = rephotographed_set(folder, tmp_path / "out")
    reasons = {
        photo.path.name: rejection.reasons
        for rejection in result.rejections
        for photo in result.photos
        if photo.key == rejection.photo
    }
    assert reasons == {"text.jpg": {Reason.NOT_AN_IMAGE}, "empty.png": {Reason.PHOTO_EMPTY}}


def test_the_same_seed_chooses_and_makes_the_same(folder: Path, tmp_path: Path) -> None:
    sets = [
        rephotographed_set(folder, tmp_path / name, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    made = [
        [photo.path.read_bytes() for photo in s.photos if photo.claim_id.startswith("again")] for s in sets
    ]
    assert made[0] == made[1] != made[2]
    assert sets[0].alerts == sets[1].alerts


def test_an_earlier_run_below_the_folder_is_no_photo_of_it(folder: Path) -> None:
    first = rephotographed_set(folder, folder / "made")
    second = rephotographed_set(folder, folder / "made")
    assert [photo.key for photo in first.photos] == [photo.key for photo in second.photos]


def test_at_least_one_again_and_none_for_a_share_of_none(folder: Path, tmp_path: Path) -> None:
    assert len(rephotographed_set(folder, tmp_path / "a", share=0.001).alerts) == 1
    assert not rephotographed_set(folder, tmp_path / "b", share=0).alerts


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        rephotographed_set(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "bare").mkdir()
    with pytest.raises(FileNotFoundError, match="no photos"):
        rephotographed_set(tmp_path / "bare", tmp_path / "out")
    with pytest.raises(ValueError, match="share"):
        rephotographed_set(tmp_path, tmp_path / "out", share=1.5)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seed": 1}', '{"photos": 3}'])
def test_a_manifest_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(ValueError, match="not a demo set's manifest"):
        DemoSet.load(tmp_path)
