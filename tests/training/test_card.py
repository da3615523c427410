"""The model card says what the manifest says."""

from __future__ import annotations

import json
from pathlib import Path

from damagewatch.vision.manifest import read_manifest
from damagewatch_training.export import card

MODELS = Path(__file__).parents[2] / "deploy/models"


def test_the_card_names_files_hashes_sources_and_figures() -> None:
    manifest = json.loads((MODELS / "manifest.json").read_text())
    text = card.markdown(MODELS)
    assert manifest["version"] in text
    for part in read_manifest(MODELS).models:
        entry = manifest[part]
        assert entry["sha256"] in text
        assert f"`{entry['file']}`" in text
        for source in entry["data"]:
            assert f"| {source['name']} | {source['licence']} | {source['source']} |" in text


def test_nested_figures_become_rows_and_pipes_break_no_table(tmp_path: Path) -> None:
    manifest = json.loads((MODELS / "manifest.json").read_text())
    manifest["detector"]["quality"] = {"val": {"Dice": 0.5}, "a|b": 3}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    text = card.markdown(tmp_path)
    assert "| val, Dice | 0.5 |" in text
    assert "| a\\|b | 3 |" in text
