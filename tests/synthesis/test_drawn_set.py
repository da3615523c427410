"""The demo's own photos, drawn small and once for all tests here."""

from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

from damagewatch.domain import AlertKind, Refused
from damagewatch.synthesis.drawn_set import demo_set
from damagewatch.synthesis.expectations import MANIFEST, DemoSet
from damagewatch.vision.decode import decode


def image(file: bytes) -> np.ndarray:
    return decode(file).image


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> DemoSet:
    return demo_set(tmp_path_factory.mktemp("drawn"), width=320)


def test_a_dozen_claims_of_about_forty_photos(drawn: DemoSet) -> None:
    assert 12 <= len({photo.claim_id for photo in drawn.photos}) <= 16
    assert 36 <= len(drawn.photos) <= 52
    assert drawn.closed


def test_each_photo_lies_in_its_claims_folder(drawn: DemoSet) -> None:
    for photo in drawn.photos:
        assert photo.path == drawn.directory / photo.claim_id / photo.photo_id
        assert photo.path.is_file()
    files = {path for path in drawn.directory.rglob("*") if path.is_file()}
    assert files == {photo.path for photo in drawn.photos} | {drawn.directory / MANIFEST}


def test_broken_files_are_refused_as_promised_and_all_others_are_photos(drawn: DemoSet) -> None:
    promised = {rejection.photo: rejection.reasons for rejection in drawn.rejections}
    assert len(promised) >= 5
    assert len(set().union(*promised.values())) >= 5
    for photo in drawn.photos:
        try:
            content = image(photo.path.read_bytes())
        except Refused as refusal:
            assert refusal.reason in promised.pop(photo.key)
        else:
            assert content.std() > 10  # something is on it
    assert not promised


def test_every_kind_of_return_is_planted_between_claims(drawn: DemoSet) -> None:
    known = {photo.key for photo in drawn.photos} - {rejection.photo for rejection in drawn.rejections}
    for alert in drawn.alerts:
        one, other = sorted(alert.pair)
        assert one[0] != other[0]
        assert {one, other} <= known
        assert alert.kinds
    kinds = [alert.kinds for alert in drawn.alerts]
    assert kinds.count(frozenset({AlertKind.SAME_DAMAGE})) >= 3
    assert frozenset({AlertKind.DUPLICATE_PHOTO}) in kinds


def test_pairs_not_counted_are_neither_expected_nor_within_a_claim(drawn: DemoSet) -> None:
    assert drawn.uncounted
    assert not drawn.uncounted & {alert.pair for alert in drawn.alerts}
    assert all(len({claim for claim, _ in pair}) == 2 for pair in drawn.uncounted)


def test_copies_are_what_their_expectation_says(drawn: DemoSet) -> None:
    path_of = {photo.key: photo.path for photo in drawn.photos}

    def images(why: str) -> tuple[bytes, bytes]:
        (alert,) = (alert for alert in drawn.alerts if why in alert.why)
        first, second = sorted(alert.pair)
        return path_of[first].read_bytes(), path_of[second].read_bytes()

    source, copy = images("the same file")
    assert source == copy
    source, copy = images("mirrored")
    one, other = image(source), image(copy)
    assert np.abs(one[:, ::-1].astype(int) - other).mean() < 6 < np.abs(one.astype(int) - other).mean()
    source, copy = images("cropped")
    one, other = image(source), image(copy)
    smaller = cv2.resize(one, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    assert cv2.matchTemplate(smaller, other, cv2.TM_CCOEFF_NORMED).max() > 0.9


def test_a_return_is_another_photograph_and_no_warp_of_the_first(drawn: DemoSet) -> None:
    path_of = {photo.key: photo.path for photo in drawn.photos}
    for alert in drawn.alerts:
        if alert.kinds == {AlertKind.SAME_DAMAGE}:
            one, other = (image(path_of[key].read_bytes()) for key in sorted(alert.pair))
            assert np.abs(one.astype(int) - other).mean() > 8


def test_no_two_photos_are_the_same_but_the_planted_copy(drawn: DemoSet) -> None:
    contents = {photo.key: photo.path.read_bytes() for photo in drawn.photos}
    same = {frozenset((a, b)) for a, b in combinations(contents, 2) if contents[a] == contents[b]}
    assert same == {alert.pair for alert in drawn.alerts if alert.why == "the same file"}


def test_the_manifest_reads_back(drawn: DemoSet) -> None:
    assert DemoSet.load(drawn.directory) == drawn


def test_one_seed_draws_the_same_bytes(drawn: DemoSet, tmp_path: Path) -> None:
    again = demo_set(tmp_path, drawn.seed, width=320)
    assert [p.path.read_bytes() for p in again.photos] == [p.path.read_bytes() for p in drawn.photos]
