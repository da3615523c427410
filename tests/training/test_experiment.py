"""Experiments: their settings, and the record of what made an artefact."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from damagewatch_training.experiment import config, record


@dataclass(frozen=True, slots=True)
class Loss:
    name: str = "triplet"
    margin: float = 0.2


@dataclass(frozen=True, slots=True)
class Settings:
    epochs: int = 10
    sizes: tuple[int, ...] = (64, 96)
    loss: Loss = field(default_factory=Loss)
    seed: int = 1


def experiment(folder: Path, text: str) -> Path:
    path = folder / "experiment.toml"
    path.write_text(text)
    return path


def test_a_file_overrides_the_defaults_and_set_overrides_the_file(tmp_path: Path) -> None:
    path = experiment(tmp_path, "epochs = 3\nsizes = [128]\n[loss]\nmargin = 0.3\n")
    settings = config.load(path, ["loss.name=supcon", "epochs=5", "epochs=6"], Settings)
    assert settings == Settings(6, (128,), Loss("supcon", 0.3), 1)


@pytest.mark.parametrize(
    ("text", "override", "named"),
    [
        ("epoch = 3", None, "epoch;"),
        ("[loss]\nmargins = 3", None, "loss.margins"),
        ("epochs = 'many'", None, "epochs"),
        ("epochs = ", None, "not TOML"),
        ("", "epochs", "key=value"),
        ("", "=3", "key=value"),
        ("", "loss.margins=3", "loss.margins"),
        ("", "loss=3", "loss"),
        ("", "epochs=2.5", "epochs"),
        ("", "sizes=[1, x]", "sizes"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, text: str, override: str | None, named: str) -> None:
    path = experiment(tmp_path, text)
    with pytest.raises(config.ConfigError, match=named):
        config.load(path, [override] if override else [], Settings)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match=r"no\.toml: No such file"):
        config.load(tmp_path / "no.toml", [], Settings)


def test_equal_settings_have_equal_hashes(tmp_path: Path) -> None:
    path = experiment(tmp_path, "epochs = 3\n")
    assert config.sha256(config.load(path, [], Settings)) == config.sha256(Settings(epochs=3))
    assert config.sha256(Settings(epochs=3)) != config.sha256(Settings(epochs=4))


def test_a_record_says_what_made_an_artefact(tmp_path: Path) -> None:
    record.write(tmp_path, Settings(seed=7), "0" * 64, processes=2)
    entry = record.read(tmp_path)
    assert entry is not None
    assert entry["config"] == config.resolved(Settings(seed=7))
    assert entry["config_sha256"] == config.sha256(Settings(seed=7))
    assert (entry["seed"], entry["data_sha256"], entry["processes"]) == (7, "0" * 64, 2)
    assert entry["libraries"]["numpy"]
    record.add(tmp_path, figures={"rank_1": 0.9})
    again = record.read(tmp_path)
    assert again == entry | {"figures": {"rank_1": 0.9}}


def test_a_training_goes_on_only_with_what_it_began_with(tmp_path: Path) -> None:
    record.check(tmp_path, Settings(), "a")
    record.write(tmp_path, Settings(), "a")
    record.check(tmp_path, Settings(), "a")
    record.check(tmp_path, Settings(seed=2), "a", may_differ=["seed"])
    with pytest.raises(record.OtherExperiment, match="epochs was 10, is 11"):
        record.check(tmp_path, Settings(epochs=11), "a")
    with pytest.raises(record.OtherExperiment, match="other data"):
        record.check(tmp_path, Settings(), "b")


def test_the_hash_of_data_depends_on_names_and_contents_not_on_order(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    two.write_text("2")
    first = record.data_sha256([one, two])
    assert first == record.data_sha256([two, one])
    assert first != record.data_sha256({"one": two, "two": one})
    two.write_text("3")
    assert first != record.data_sha256([one, two])
