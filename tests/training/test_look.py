import json
import re
from pathlib import Path

import numpy as np
import pytest

from damagewatch.domain import Box
from damagewatch.vision.decode import Photo
from damagewatch_training.look import occlusion, projection


def corner(photo: Photo, box: Box) -> np.ndarray:
    """An embedder that looks at the top left quarter alone."""
    part = photo.image[: photo.height // 2, : photo.width // 2]
    return part.astype(np.float32).mean(axis=2).ravel() - 100


def test_what_an_embedder_looks_at_is_lost_when_it_is_covered() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    likeness = occlusion.vector(corner, image)
    loss = occlusion.lost(corner, image, likeness)
    assert loss.shape == (occlusion.GRID, occlusion.GRID)
    assert loss[:4, :4].min() > 0.01
    assert loss[6:].max() == pytest.approx(0, abs=1e-6)
    assert loss[:, 6:].max() == pytest.approx(0, abs=1e-6)
    shown = occlusion.shown(image, loss, float(loss.max()))
    assert shown.shape == image.shape and shown.dtype == np.uint8


def test_principal_directions_keep_distances_in_a_plane() -> None:
    rng = np.random.default_rng(1)
    plane = rng.standard_normal((20, 2))
    turned = plane @ np.linalg.qr(rng.standard_normal((8, 8)))[0][:2] + 3
    flat = projection.principal(turned.astype(np.float32))
    for one, other in ((plane, flat),):
        wanted = np.linalg.norm(one[:, None] - one[None], axis=2)
        assert np.linalg.norm(other[:, None] - other[None], axis=2) == pytest.approx(wanted, abs=1e-4)


def test_nearest_leaves_itself_out() -> None:
    vectors = np.array([[1, 0], [0.9, 0.1], [0, 1]], np.float32)
    assert projection.nearest(vectors, 5)[:, 0].tolist() == [1, 0, 1]
    assert projection.nearest(vectors, 5).shape == (3, 2)


def test_the_map_is_one_file_and_names_stay_names(tmp_path: Path) -> None:
    points = [
        projection.Point(f"</script><script>alert({i})", "a<b>" if i else "c", "data:,") for i in range(3)
    ]
    flat = np.array([[0.0, 5.0], [2.0, 5.0], [1.0, 5.0]])
    projection.write(tmp_path / "m" / "map.html", "a map", points, flat, np.array([[1], [0], [0]]))
    page = (tmp_path / "m" / "map.html").read_text()
    assert page.count("</script>") == 1
    assert "http" not in page.replace("http-equiv", "")
    content = json.loads(re.search(r"const content = (.*);\n", page)[1])  # type: ignore[index]
    assert [point[3] for point in content["points"]] == [point.name for point in points]
    assert [point[:2] for point in content["points"]] == [[0, 0], [1, 0], [0.5, 0]]
    assert [name for name, _ in content["groups"]] == ["a<b>", "c"]
