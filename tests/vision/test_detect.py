from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from damagewatch.domain import DamageType, Severity
from damagewatch.vision.detect import MAX_DAMAGES, MAX_POLYGONS, MAX_VERTICES, regions


def blank(rows: int = 96, columns: int = 128) -> np.ndarray:
    maps = np.zeros((7, rows, columns), np.float32)
    maps[0] = -8
    return maps


def test_a_blob_becomes_a_damage_in_photo_pixels() -> None:
    maps = blank()
    maps[0, 20:40, 30:70] = 3
    maps[2] = 4  # dent
    maps[6] = 4  # severe
    (found,) = regions(maps, 1280, 960, 0.5, 0.001)
    assert (found.box.x0, found.box.y0, found.box.x1, found.box.y1) == (300, 200, 700, 400)
    assert (found.type, found.severity) == (DamageType.DENT, Severity.SEVERE)
    assert abs(found.score - 0.9526) < 1e-3
    assert len(found.polygons) == 1
    for x, y in found.polygons[0]:
        assert 300 <= x <= 700
        assert 200 <= y <= 400


def test_fragments_are_one_damage_and_specks_are_none() -> None:
    maps = blank()
    maps[0, 20:24, 10:40] = maps[0, 20:24, 43:80] = 2
    maps[0, 80, 100] = 5
    (found,) = regions(maps, 128, 96, 0.5, 0.001)
    assert (found.box.x0, found.box.x1) == (10, 80)
    assert len(found.polygons) == 2


def test_a_faint_region_counts_only_where_some_of_it_is_certain() -> None:
    maps = blank()
    maps[0, 20:40, 10:40] = maps[0, 20:40, 80:110] = 0  # probability 1/2
    maps[0, 30, 20] = 3
    (found,) = regions(maps, 128, 96, 0.4, 0.001, certain=0.9)
    assert (found.box.x0, found.box.x1) == (10, 40)
    assert len(regions(maps, 128, 96, 0.4, 0.001)) == 2


def test_the_most_certain_come_first_and_not_too_many() -> None:
    maps = blank(192, 192)
    for number in range(16):
        y, x = divmod(number, 4)
        maps[0, y * 48 : y * 48 + 12, x * 48 : x * 48 + 12] = 1 + number / 8
    found = regions(maps, 192, 192, 0.5, 0.0005)
    assert len(found) == MAX_DAMAGES
    scores = [r.score for r in found]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 1 / (1 + np.exp(-1.9))


@settings(max_examples=40)
@given(
    arrays.arrays(np.float32, (7, 24, 32), elements=st.floats(-50, 50, width=32)),
    st.integers(1, 5000),
    st.integers(1, 5000),
)
def test_any_maps_give_damages_within_the_photo(maps: np.ndarray, width: int, height: int) -> None:
    found = regions(maps, width, height, 0.5, 0.0)
    assert found == regions(maps.copy(), width, height, 0.5, 0.0)
    assert len(found) <= MAX_DAMAGES
    for region in found:
        assert 0 <= region.box.x0 < region.box.x1 <= width + 1e-6
        assert 0 <= region.box.y0 < region.box.y1 <= height + 1e-6
        assert 0.5 <= region.score <= 1
        assert 1 <= len(region.polygons) <= MAX_POLYGONS
        for polygon in region.polygons:
            assert 3 <= len(polygon) <= MAX_VERTICES
            for x, y in polygon:
                assert -0.01 <= x <= width + 0.01
                assert -0.01 <= y <= height + 0.01
