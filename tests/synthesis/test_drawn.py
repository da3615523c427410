import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damagewatch.domain import DamageType
from damagewatch.synthesis.drawn.camera import Standpoint, photograph
from damagewatch.synthesis.drawn.car import Car, View, draw
from damagewatch.synthesis.drawn.damage import DAMAGES
from damagewatch.synthesis.drawn.place import street, workshop
from damagewatch.synthesis.drawn.surface import HEIGHT, PLASTIC, TEXELS, WIDTH, Material, Surface, ellipse

WHITE = Material((0.9, 0.9, 0.9), 0.0, 0.0)


@given(
    seed=st.integers(0, 2**32 - 1),
    x=st.floats(100, WIDTH - 100),
    y=st.floats(100, HEIGHT - 100),
    slant=st.floats(0, 1),
)
@settings(max_examples=50)
def test_a_standpoint_shows_only_what_is_drawn(seed: int, x: float, y: float, slant: float) -> None:
    corners = Standpoint.near((x, y), np.random.default_rng(seed), slant).corners()
    assert (corners >= 0).all()
    assert (corners <= (WIDTH, HEIGHT)).all()
    # In order around the photo, so the picture is neither mirrored nor upside down.
    assert corners[0, 0] < corners[1, 0]
    assert corners[0, 1] < corners[3, 1]


def test_a_photo_shows_a_mark_where_the_outline_says() -> None:
    rng = np.random.default_rng(1)
    surface = Surface.of(PLASTIC)
    rows = np.arange(surface.height.shape[0], dtype=np.float32)[:, None] / TEXELS
    surface.height -= (rows - 400) ** 2 / 3000  # rounded, as a door is
    mark = ellipse(600, 380, 12, 12)
    surface.part(mark, WHITE)
    surface.damaged.append(mark)
    place = workshop(rng)
    for _ in range(4):
        photo = photograph(surface, place, Standpoint.near((560, 420), rng), rng, width=480, height=360)
        grey = cv2.cvtColor(photo.image, cv2.COLOR_BGR2GRAY).astype(float)
        centre = photo.damaged[0].mean(axis=0)
        rows, columns = np.mgrid[0.5:360, 0.5:480]
        near = np.hypot(columns - centre[0], rows - centre[1])
        inside, around = grey[near < 4].mean(), grey[(near > 16) & (near < 24)].mean()
        assert inside > around + 30


@pytest.mark.parametrize("kind", list(DAMAGES))
def test_damage_changes_the_panel_where_it_says_and_nowhere_else(kind: DamageType) -> None:
    intact = draw(Car(1, "silver", 1), View.DOORS)
    damaged = intact.copy()
    DAMAGES[kind](damaged, 500, 400, 240, np.random.default_rng(3))
    (outline,) = damaged.damaged
    assert not intact.damaged
    changed = (damaged.colour != intact.colour).any(axis=2) | (np.abs(damaged.height - intact.height) > 0.05)
    rows, columns = np.nonzero(changed)
    assert len(rows) > 300
    reach = np.hypot(columns / TEXELS - 500, rows / TEXELS - 400)
    assert reach.max() < 360
    window, inside = damaged.mask([outline])
    assert changed[window][inside > 0.5].mean() > 0.1


def test_damages_of_other_numbers_differ() -> None:
    def slope(number: int) -> np.ndarray:
        surface = Surface.of(PLASTIC)
        DAMAGES[DamageType.DENT](surface, 500, 400, 240, np.random.default_rng(number))
        return surface.slopes

    assert np.array_equal(slope(1), slope(1))
    assert np.abs(slope(1) - slope(2)).max() > 0.05


@pytest.mark.parametrize("view", list(View))
def test_twins_share_their_shape_but_not_their_wear(view: View) -> None:
    one, twin, other = (draw(car, view) for car in (Car(1, "red", 1), Car(1, "red", 2), Car(2, "red", 1)))
    assert np.array_equal(one.height, twin.height)
    assert not np.array_equal(one.colour, twin.colour)
    assert np.abs(one.height - other.height).max() > 1


def test_reflections_depend_on_the_place_and_on_the_standpoint() -> None:
    surface = draw(Car(1, "blue", 1), View.DOORS)
    straight = Standpoint((560, 420), 700, 0, 0, 0)
    places = [make(np.random.default_rng(5)) for make in (street, workshop)]
    photos = [
        photograph(surface, place, straight, np.random.default_rng(0), width=320, height=240).image.astype(
            int
        )
        for place in (*places, places[0])
    ]
    assert np.array_equal(photos[0], photos[2])
    assert np.abs(photos[0] - photos[1]).mean() > 5
