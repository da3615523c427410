from pathlib import Path

import cv2
import numpy as np
import pytest

from damagewatch.domain import Box
from damagewatch.vision.decode import Photo
from damagewatch.vision.hashing import distance, perceptual_hashes
from damagewatch.vision.models import Models
from damagewatch_training.evaluate import elsewhere, methods
from damagewatch_training.evaluate.methods import MethodRefusedError
from damagewatch_training.evaluate.task import Item, Task

from ..vision.models_folder import SHIPPED
from ..vision.pictures import scene


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Two queries, three in the gallery; the last two are windows of one photo."""
    items = []
    for seed, name in enumerate("abcd"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), scene(160, 120, seed))
        items.append(Item(name, tmp_path / f"{name}.png", Box(20, 10, 120, 100)))
    items.append(Item("e", tmp_path / "d.png"))
    relevant = np.array([[True, False, False], [False, True, False]])
    return Task(tuple(items[:2]), tuple(items[2:]), relevant, ~relevant & False, np.arange(2), "a task")


def features(method: str, task: Task, keep: Path) -> np.ndarray:
    *_, found = methods.features(method, task, keep)
    assert isinstance(found, np.ndarray)
    return found


@pytest.mark.parametrize("method", [str(SHIPPED), str(SHIPPED / "embedder.onnx")])
def test_the_shipped_embedder_is_asked_as_the_service_asks_it(
    method: str, task: Task, tmp_path: Path
) -> None:
    found = features(method, task, tmp_path / "kept")
    models = Models.load(SHIPPED)
    for item, vector in zip(task.items, found, strict=True):
        assert vector == pytest.approx(models.embedder.embed(*item.read()), abs=1e-6)


def test_perceptual_hash_as_features(task: Task, tmp_path: Path) -> None:
    found = features("phash", task, tmp_path / "kept")
    one, other = (
        perceptual_hashes(methods.resample.cut(*item.read(), 256, 256))[0] for item in task.items[:2]
    )
    assert found[0] @ found[1] == pytest.approx(1 - distance(one, other) / 32)


def test_features_are_kept_for_the_same_model_and_pictures(task: Task, tmp_path: Path) -> None:
    first = features("phash", task, tmp_path / "kept")
    (kept,) = (tmp_path / "kept").iterdir()
    before = kept.stat().st_mtime_ns
    assert (features("phash", task, tmp_path / "kept") == first).all()
    assert kept.stat().st_mtime_ns == before
    (tmp_path / "a.png").write_bytes((tmp_path / "b.png").read_bytes())  # another picture of the same name
    assert not (features("phash", task, tmp_path / "kept") == first).all()


def test_named_features_in_any_order_and_of_any_length(task: Task, tmp_path: Path) -> None:
    names, x = np.array(list("xedcba")), np.arange(1, 13).reshape(6, 2)
    np.savez(tmp_path / "f.npz", name=names, x=x)
    found = features(str(tmp_path / "f.npz"), task, tmp_path)
    assert found[0] == pytest.approx(np.array([11, 12]) / np.hypot(11, 12))
    assert found[4] == pytest.approx(np.array([3, 4]) / 5)
    np.save(tmp_path / "f.npy", x[:5])
    assert features(str(tmp_path / "f.npy"), task, tmp_path)[1] == pytest.approx(np.array([3, 4]) / 5)


def test_features_that_do_not_fit_are_refused(task: Task, tmp_path: Path) -> None:
    np.savez(tmp_path / "few.npz", name=np.array(["a"]), x=np.ones((1, 4)))
    np.savez(tmp_path / "other.npz", y=np.ones((1, 4)))
    np.save(tmp_path / "short.npy", np.ones((3, 4)))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "text.npz").write_text("no numbers")
    np.savez(tmp_path / "words.npz", name=np.array(["a"], object), x=np.ones((1, 4)))
    (tmp_path / "empty.npz").touch()
    (tmp_path / "empty.npy").touch()
    (tmp_path / "broken.npz").write_bytes((tmp_path / "few.npz").read_bytes()[:-30])
    np.save(tmp_path / "nan.npy", np.full((5, 2), np.nan))
    for name, told in (
        ("few.npz", "4 of 5 items are missing"),
        ("other.npz", "`name` and `x`"),
        ("short.npy", "2 rows for the queries"),
        ("objects.npy", "cannot load|numpy can load"),
        ("text.npz", "numpy can load"),
        ("words.npz", "cannot be read"),
        ("empty.npz", "numpy can load"),
        ("empty.npy", "numpy can load"),
        ("broken.npz", "numpy can load"),
        ("nan.npy", "finite"),
        ("missing.onnx", "no such file"),
        ("missing.npz", "no such file"),
        ("resnet", "not a method"),
        ("", "neither a folder of models"),
    ):
        method = str(tmp_path / name) if name != "resnet" else name
        with pytest.raises(MethodRefusedError, match=told):
            methods.check(method)
            features(method, task, tmp_path / "kept")


def test_a_model_that_takes_no_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(MethodRefusedError, match="ONNX Runtime can load"):
        methods.embedder(str(tmp_path / "m.onnx"))


def test_a_window_is_embedded_and_not_its_photo() -> None:
    image = scene(200, 100, 1)
    embed = methods.embedder("phash")
    photo = Photo(image, 200, 100, 1.0)
    alone = Photo(np.ascontiguousarray(image[:, :100]), 100, 100, 1.0)
    assert (embed(photo, Box(0, 0, 100, 100)) == embed(alone, Box(0, 0, 100, 100))).mean() > 0.95
    assert (embed(photo, Box(0, 0, 100, 100)) != embed(photo, Box(100, 0, 200, 100))).any()


def mean_colour(path: Path) -> Path:
    """A model that takes bytes, of any size, and gives their mean colour."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["image"], ["numbers"], to=kinds.FLOAT),
        helper.make_node("ReduceMean", ["numbers", "axes"], ["mean"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "mean colour",
        [helper.make_tensor_value_info("image", kinds.UINT8, ["n", "h", "w", 3])],
        [helper.make_tensor_value_info("mean", kinds.FLOAT, ["n", 3])],
        [helper.make_tensor("axes", kinds.INT64, [2], [1, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def test_a_model_that_takes_bytes_here_and_elsewhere(task: Task, tmp_path: Path) -> None:
    model = mean_colour(tmp_path / "colour.onnx")
    found = features(str(model), task, tmp_path / "kept")
    whole = cv2.imread(str(tmp_path / "d.png")).reshape(-1, 3).mean(0)[::-1]
    assert found[4] == pytest.approx(whole / np.linalg.norm(whole), abs=0.01)
    with (tmp_path / "items.csv").open("w") as lines:
        lines.write("name,file,x0,y0,x1,y1\n")
        for item in task.items:
            box = item.window
            corners = ",,," if box is None else f"{box.x0},{box.y0},{box.x1},{box.y1}"
            lines.write(f"{item.name},{item.file},{corners}\n")
    elsewhere.write(model, tmp_path / "items.csv", tmp_path / "f.npz", None)
    assert features(str(tmp_path / "f.npz"), task, tmp_path) == pytest.approx(found, abs=1e-5)
    np.save(tmp_path / "centre.npy", np.full((7, 3), 100.0))
    elsewhere.write(model, tmp_path / "items.csv", tmp_path / "f.npz", tmp_path / "centre.npy")
    with np.load(tmp_path / "f.npz") as stored:
        assert stored["x"][4] == pytest.approx(whole - 100, abs=1.5)
