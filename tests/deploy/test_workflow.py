"""The release workflow: its schema, zizmor, and that every action is one commit and no other."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
RELEASE = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())


def test_workflows_fit_the_schema(tool):
    assert WORKFLOWS
    subprocess.run(
        [tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *WORKFLOWS], check=True
    )


def test_zizmor_finds_nothing(tool):
    subprocess.run([tool("zizmor"), "--offline", "--quiet", "--persona=pedantic", *WORKFLOWS], check=True)


def test_actions_are_pinned_by_commit_with_their_version():
    for path in WORKFLOWS:
        for action in re.findall(r"uses: (.+)", path.read_text()):
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_nothing_is_built_before_all_checks_passed():
    assert {step["run"] for step in RELEASE["jobs"]["verify"]["steps"] if "run" in step} == {
        "make lint", "make test", "make audit",
    }  # fmt: skip
    assert RELEASE["jobs"]["image"]["needs"] == "verify"


def test_images_are_signed_by_digest_and_described():
    steps = RELEASE["jobs"]["image"]["steps"]
    build = next(step["with"] for step in steps if step.get("id") == "build")
    assert build["provenance"] == "mode=max"
    assert build["sbom"]
    signing = next(step["run"] for step in steps if "cosign sign" in step.get("run", ""))
    assert 'cosign sign --yes "$IMAGE@$DIGEST"' in signing
    assert any("attest-build-provenance" in step.get("uses", "") for step in steps)


def test_every_make_target_that_is_called_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in WORKFLOWS:
        assert set(re.findall(r"\bmake ([a-z-]+)", path.read_text())) <= targets
