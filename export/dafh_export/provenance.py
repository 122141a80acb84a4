"""Where an export came from: ``provenance.json``, beside the model and no part of its hash."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from dafh.settings import CHECKOUT

PROVENANCE_FILE = "provenance.json"
#: Distributions whose versions decide what an export looks like.
TOOLS = (
    "dafh",
    "torch",
    "monai",
    "onnx",
    "onnxslim",
    "onnxruntime",
    "nvidia-modelopt",
)
GIT_SECONDS = 10.0


class Provenance(BaseModel):
    """Where a model file came from."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    exported: datetime
    #: Git revision of DAFH, with ``+changes`` where the tree differed from it; empty outside Git.
    revision: str
    python: str
    #: Distribution -> version, of those installed.
    tools: dict[str, str]
    #: SHA-256 of the checkpoint that was exported.
    checkpoint: str
    #: `dafh.encoding.port.ModelVersion.hash`.
    model_hash: str


def provenance(checkpoint: Path, model_hash: str) -> Provenance:
    """Describe an export that happens now."""
    return Provenance(
        exported=datetime.now(UTC),
        revision=revision(CHECKOUT),
        python=platform.python_version(),
        tools={name: number for name in TOOLS if (number := _installed(name))},
        checkpoint=file_digest(checkpoint),
        model_hash=model_hash,
    )


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def revision(checkout: Path) -> str:
    """Return the Git revision of a checkout; empty where there is none to be asked."""
    commit = _git(checkout, "rev-parse", "HEAD")
    return f"{commit}+changes" if commit and _git(checkout, "status", "--porcelain") else commit


def _git(checkout: Path, *arguments: str) -> str:
    program = shutil.which("git")
    if program is None or not (checkout / ".git").exists():
        return ""
    try:
        answer = subprocess.run(
            [program, "-C", str(checkout), *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
