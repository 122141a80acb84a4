"""checkov finds nothing in what the examples render to, but what is explained."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s.chart import CI, manifests_of

ENVIRONMENT = Path(sys.prefix) / "checkov"
SKIPS: dict[str, dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("checkov.toml").read_text()
)
#: What it must find, or it finds nothing at all.
BROKEN = "Pod.imaging.broken"


def failures(folder: Path) -> list[tuple[str, str]]:
    """Return checks that failed, and where."""
    program = ENVIRONMENT / "bin" / "python"
    if not program.exists():
        pytest.skip("checkov is not installed (`make setup`)")
    found = subprocess.run(
        [
            str(program), "-m", "checkov.main", "--directory", str(folder), "--framework",
            "kubernetes", "--skip-download", "--quiet", "--compact", "--output", "json",
        ],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )  # fmt: skip
    told = json.loads(found.stdout)
    return [(one["check_id"], one["resource"]) for one in told["results"]["failed_checks"]]


def is_explained(check: str, resource: str) -> bool:
    """Say whether a check is skipped for a resource, ``Kind.imaging-example.name``."""
    if (skip := SKIPS.get(check)) is None:
        return False
    kind, namespace, _ = resource.split(".", 2)
    return kind in skip.get("only", [kind]) and namespace.removeprefix("imaging-") in skip.get(
        "examples", CI
    )


@pytest.mark.timeout(620)
def test_checkov_finds_nothing_that_is_not_explained(tmp_path: Path) -> None:
    for example in CI:
        objects = manifests_of(example).objects
        for one in objects:
            one["metadata"]["namespace"] = f"imaging-{example}"
        (tmp_path / f"{example}.yaml").write_text(yaml.safe_dump_all(objects))
    broken = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "broken", "namespace": "imaging"},
        "spec": {
            "containers": [{"name": "x", "image": "x", "securityContext": {"privileged": True}}]
        },
    }
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(broken))
    found = failures(tmp_path)
    # CKV_K8S_16: containers should not be privileged.
    assert ("CKV_K8S_16", BROKEN) in found
    ours = [(check, resource) for check, resource in found if resource != BROKEN]
    unexplained = [one for one in ours if not is_explained(*one)]
    assert unexplained == []
    assert set(SKIPS) <= {check for check, _ in ours}, "what is passed needs no explanation"


def test_each_skip_says_why() -> None:
    for skip in SKIPS.values():
        assert set(skip) <= {"about", "only", "examples", "why"}
        assert len(skip["why"]) > 80
