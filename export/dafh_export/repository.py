"""Publish a version: its folder in the model repository, and what describes it to Triton."""

from __future__ import annotations

import platform
import shutil
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path

from pydantic import BaseModel

from dafh.encoding.calibration import Calibration
from dafh.encoding.onnx import CALIBRATION_FILE, MODEL_FILE, OnnxEncoder
from dafh.encoding.port import MODEL, ModelVersion
from dafh.errors import Conflict, Reason
from dafh_export.checkpoint import CHECKPOINT_FILE
from dafh_export.configuration import VARIANTS, configuration

PROVENANCE_FILE = "provenance.json"
#: Runs inside Triton and imports what only Triton has: copied, never imported.
SERVER_SIDE = Path(__file__).with_name("triton_model.py")
TOOLS = ("torch", "onnx", "monai", "onnxruntime")


class Provenance(BaseModel):
    """Where a version came from; beside the model, not part of its hash."""

    exported: datetime
    python: str
    tools: dict[str, str]


def publish(run: Path, repository: Path, version: int) -> ModelVersion:
    """Put an exported run into a model repository as `version`.

    Parameters
    ----------
    run
        Folder with ``model.safetensors``, ``model.onnx`` and, where it was fitted,
        ``calibration.json``.
    repository
        Folder of model folders, as Triton takes it.
    version
        Number of the version; a version once published with other content stays.

    Raises
    ------
    Conflict
        The version exists with another model.
    """
    folder = repository / MODEL / str(version)
    if folder.exists():
        if (folder / MODEL_FILE).read_bytes() != (run / MODEL_FILE).read_bytes():
            raise Conflict(
                Reason.ARGUMENT_INVALID,
                f"Version {version} exists with another model.",
                remedy="Publish under the next number.",
            )
    else:
        _fill(folder, run)
    versions = [
        OnnxEncoder(repository, number).model
        for number in sorted(
            int(path.name) for path in folder.parent.iterdir() if path.name.isdigit()
        )
    ]
    for variant in VARIANTS:
        path = folder.parent / variant.file
        path.parent.mkdir(exist_ok=True)
        path.write_text(configuration(variant, versions))
    return versions[-1]


def _fill(folder: Path, run: Path) -> None:
    draft = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for name in (MODEL_FILE, CHECKPOINT_FILE):
        shutil.copyfile(run / name, draft / name)
    fitted = run / CALIBRATION_FILE
    text = fitted.read_text() if fitted.exists() else Calibration().model_dump_json(indent=2)
    (draft / CALIBRATION_FILE).write_text(text)
    shutil.copyfile(SERVER_SIDE, draft / "model.py")
    provenance = Provenance(
        exported=datetime.now(UTC),
        python=platform.python_version(),
        tools={name: installed(name) for name in TOOLS},
    )
    (draft / PROVENANCE_FILE).write_text(provenance.model_dump_json(indent=2) + "\n")
    draft.replace(folder)
