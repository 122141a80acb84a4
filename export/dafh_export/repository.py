"""Publish a version: its folder in the model repository, and what describes it to Triton."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from dafh.deadline import Deadline
from dafh.encoding.calibration import Calibration
from dafh.encoding.onnx import CALIBRATION_FILE, MODEL_FILE, with_calibration
from dafh.encoding.port import MODEL, ModelVersion
from dafh.errors import Conflict, InvalidInput, Reason
from dafh.writing import write_atomically
from dafh_export.checkpoint import CHECKPOINT_FILE
from dafh_export.configuration import VARIANTS, configuration, signature
from dafh_export.golden import GOLDEN_FILE, write_golden
from dafh_export.model_file import Precision, load_model, read_description
from dafh_export.parity import PARITY_FILE, PARITY_TABLE, require_offered
from dafh_export.provenance import PROVENANCE_FILE
from dafh_export.server import require_golden

#: Runs inside Triton and imports what only Triton has: copied, never imported.
SERVER_SIDE = Path(__file__).with_name("triton_model.py")
SERVER_FILE = "model.py"
#: What a version is; once published it stays.
CONTENT = (
    *(precision.file for precision in Precision),
    CHECKPOINT_FILE,
    CALIBRATION_FILE,
    SERVER_FILE,
)
#: What is known of it, beside it.
RECORDS = (PROVENANCE_FILE, PARITY_FILE, PARITY_TABLE, GOLDEN_FILE)
#: Seconds for the trial in the real server: start, load, one answer per version.
TRIAL_SECONDS = 120.0


def publish(
    run: Path, repository: Path, version: int, name: str = MODEL, *, trial: bool = True
) -> ModelVersion:
    """Put an exported run into a model repository as `version`.

    Nothing that is served changes before the new version answered, in a real tritonserver, as the
    model file does in this process.

    Parameters
    ----------
    run
        Folder with ``model.safetensors``, ``model.onnx``, ``provenance.json`` and, where they were
        made, ``calibration.json`` and the model in other precisions with their ``parity.json``.
    repository
        Folder of model folders, as Triton takes it.
    version
        Number of the version.
    name
        Of the model; another than `MODEL` for tensors of other shapes.
    trial
        Whether to load it in a real server first.

    Raises
    ------
    Conflict
        The version exists with other content, or the model has versions with other tensors.
    InvalidInput
        The run lacks a file, or holds a precision that is not offered.
    FailedPrecondition
        The server does not load it, or answers otherwise.
    """
    folder = repository / name / str(version)
    draft = folder.with_name(f".{version}.part")
    draft.parent.mkdir(parents=True, exist_ok=True)
    try:
        _fill(draft, run)
        if folder.exists():
            _require_same(folder, draft)
        described = {number: describe(folder.parent / str(number)) for number in _numbers(folder)}
        described.setdefault(version, describe(draft, version))
        versions = [described[number] for number in sorted(described)]
        _require_one_signature(described[version], versions)
        if trial:
            _try(folder.parent, versions, {version: folder if folder.exists() else draft})
        if not folder.exists():
            draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    write_configuration(folder.parent, versions, name)
    return described[version]


def describe(folder: Path, version: int | None = None) -> ModelVersion:
    """Read what a version folder says of itself; its number is `version` or the folder's name.

    Raises
    ------
    Misconfigured
        The calibration is none of this model.
    """
    model = read_description(load_model(folder / MODEL_FILE))
    number = int(folder.name) if version is None else version
    numbered = model.model_copy(update={"version": number})
    return with_calibration(numbered, folder / CALIBRATION_FILE)


def write_configuration(model: Path, versions: list[ModelVersion], name: str = MODEL) -> None:
    """Write ``config.pbtxt`` and ``configs/`` of a model folder."""
    for variant in VARIANTS:
        path = model / variant.file
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, configuration(variant, versions, name).encode())


def _numbers(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.parent.iterdir() if path.name.isdigit()]


def _fill(draft: Path, run: Path) -> None:
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    for file in (MODEL_FILE, CHECKPOINT_FILE, PROVENANCE_FILE):
        if not (run / file).is_file():
            raise InvalidInput(
                Reason.ARGUMENT_INVALID,
                f"{run} holds no {file}.",
                remedy="Export the run first with `dafh export onnx`.",
            )
    require_offered(run)
    for file in (*CONTENT, *RECORDS):
        if (run / file).is_file():
            shutil.copyfile(run / file, draft / file)
    if not (draft / CALIBRATION_FILE).exists():
        unfitted = Calibration().model_dump_json(indent=2)
        (draft / CALIBRATION_FILE).write_text(f"{unfitted}\n")
    shutil.copyfile(SERVER_SIDE, draft / SERVER_FILE)
    write_golden(draft / MODEL_FILE, describe(draft, 0).side, draft)


def _require_same(folder: Path, draft: Path) -> None:
    other = [file for file in CONTENT if _bytes(folder / file) != _bytes(draft / file)]
    if other:
        raise Conflict(
            Reason.ARGUMENT_INVALID,
            f"Version {folder.name} exists with another {', '.join(other)}.",
            remedy="Publish under the next number: a version once published stays as it is.",
            subject="version",
        )


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _require_one_signature(new: ModelVersion, versions: list[ModelVersion]) -> None:
    other = [old.version for old in versions if signature(old) != signature(new)]
    if other:
        raise Conflict(
            Reason.ARGUMENT_INVALID,
            f"Version {new.version} has tensors of other shapes than version {other[0]}.",
            remedy="Publish it under a model name of its own with --name.",
            subject="name",
        )


def _try(model: Path, versions: list[ModelVersion], where: dict[int, Path]) -> None:
    """Load what the repository would be in a real server and compare it with the golden outputs."""
    with tempfile.TemporaryDirectory(prefix="dafh-export-") as folder:
        # Always under the one name that encoders ask for; the answers are the same.
        staged = Path(folder) / MODEL
        staged.mkdir()
        for version in versions:
            source = where.get(version.version, model / str(version.version))
            (staged / str(version.version)).symlink_to(source.resolve())
        write_configuration(staged, versions)
        numbers = [version.version for version in versions]
        require_golden(Path(folder), numbers, Deadline.after(TRIAL_SECONDS))
