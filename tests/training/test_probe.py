"""Probes: what a linear head finds in frozen embeddings. Skipped without scikit-learn."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the extra `train` (scikit-learn) is not installed")

from damagewatch_training import probe


@pytest.fixture
def table(tmp_path: Path) -> probe.Table:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6)).astype(np.float32)
    np.savez(tmp_path / "f.npz", name=np.array([f"p{i}" for i in range(200)]), x=x)
    lines = ["name,kind,noise,angle,claim,one,split"]
    for i in range(200):
        kind = "dent" if x[i, 0] + x[i, 1] > 0 else "scratch"
        label = "" if i < 20 else kind
        noise = "ab"[rng.integers(2)]
        lines.append(
            f"p{i},{label},{noise},{30 * x[i, 2]:.4f},c{i // 4},same,{'train' if i < 150 else 'val'}"
        )
    (tmp_path / "t.csv").write_text("\n".join([*lines, "unknown,dent,a,1,c,same,val"]))
    return probe.read(tmp_path / "f.npz", tmp_path / "t.csv")


def test_a_class_that_the_embeddings_hold_is_found_and_noise_is_not(table: probe.Table) -> None:
    found = probe.probe(table, "kind", group="claim")
    assert (found.kind, found.rows) == ("class", 180)
    assert found.accuracy > 0.93
    assert {value.value for value in found.values} == {"dent", "scratch"}
    assert sum(value.rows for value in found.values) == 180
    noise = probe.probe(table, "noise")
    assert noise.accuracy < 0.65


def test_a_number_is_told_by_its_error(table: probe.Table) -> None:
    found = probe.probe(table, "angle", split="split")
    assert (found.kind, found.rows) == ("number", 50)
    assert found.accuracy > 0.95
    assert found.error is not None
    assert found.error < 0.2 * found.baseline
    assert len(found.values) == 5


def test_figures_are_those_counted_by_hand() -> None:
    truth, said = np.array(["a", "a", "a", "b"]), np.array(["a", "a", "b", "b"])
    found = probe._classes("c", truth, said, np.array(["a", "b", "b"]))
    assert (found.accuracy, found.baseline) == (0.75, 0.25)
    assert found.balanced == pytest.approx((2 / 3 + 1) / 2)
    assert found.values == (probe.Value("a", 3, 2 / 3, 1.0), probe.Value("b", 1, 1.0, 0.5))


def test_rows_of_one_claim_are_never_on_both_sides() -> None:
    """Labels by claim alone, and embeddings that name the claim: nothing that carries over."""
    rng = np.random.default_rng(1)
    claims = np.repeat(np.arange(40), 5)
    x = rng.normal(size=(40, 30))[claims] + 0.01 * rng.normal(size=(200, 30))
    labels = np.where(rng.random(40) < 0.5, "a", "b")[claims]
    names = [f"p{i}" for i in range(200)]
    columns = {"name": names, "claim": [str(c) for c in claims], "label": labels.tolist()}
    table = probe.Table(x.astype(np.float32), columns)
    assert probe.probe(table, "label", strength=0.01).accuracy > 0.95
    assert probe.probe(table, "label", group="claim", strength=0.01).accuracy < 0.75


@pytest.mark.parametrize(
    ("column", "kind", "named"),
    [
        ("no", None, "no column `no`"),
        ("one", None, "every label is 'same'"),
        ("kind", "number", "not a number"),
    ],
)
def test_columns_that_cannot_be_probed_are_named(
    table: probe.Table, column: str, kind: probe.Kind | None, named: str
) -> None:
    with pytest.raises(probe.ProbeRefusedError, match=named):
        probe.probe(table, column, kind=kind)


def test_features_and_tables_that_make_no_sense_are_named(tmp_path: Path) -> None:
    good, bad = tmp_path / "f.npz", tmp_path / "bad.npz"
    np.savez(good, name=np.array(["a", "b"]), x=np.eye(2))
    np.savez(bad, x=np.eye(2))
    table = tmp_path / "t.csv"
    table.write_text("photo,kind\na,dent\n")
    with pytest.raises(probe.ProbeRefusedError, match="no column `name`"):
        probe.read(good, table)
    with pytest.raises(probe.ProbeRefusedError, match=r"bad\.npz"):
        probe.read(bad, table)
    table.write_text("name,kind\nz,dent\n")
    with pytest.raises(probe.ProbeRefusedError, match="no name of"):
        probe.read(good, table)
