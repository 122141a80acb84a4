"""Triton: its run-time model repository, its command line, and whether it answers, and rightly."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

import numpy as np

from dafh.deadline import Deadline
from dafh.encoding.onnx import OnnxEncoder
from dafh.encoding.port import MODEL, Encoded, ModelVersion
from dafh.encoding.triton import TritonEncoder
from dafh.errors import Misconfigured, Reason
from dafh_local.environment import TritonEnvironment
from dafh_local.plan import Plan, shared_memory_prefix
from dafh_local.ports import HOST
from dafh_local.process import Command

#: Configuration of the model for servers without a GPU.
CONFIGURATION = "configs/cpu.pbtxt"
#: The backend passes paths through a shell unquoted, so those it sees are relative to the data
#: directory: whatever a home directory is called, these have no character that a shell takes apart.
RUNTIME, MODELS, BACKENDS, PYTHON = "triton", "models", "backends", "python"
#: What is added to the copy of the configuration: the interpreters' virtual environment.
ENVIRONMENT = f"""parameters {{
  key: "EXECUTION_ENV_PATH"
  value {{
    string_value: "{RUNTIME}/{PYTHON}"
  }}
}}
"""
#: Largest difference allowed between Triton and the same file in this process.
TOLERANCE = 1e-4
#: Where Linux keeps shared memory by name.
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - not a temporary file of ours
#: Seconds that work in hand may take while the server stops.
EXIT_SECONDS = 10
#: Nothing of DAFH uses these protocols, and any process of this machine can reach the port: memory
#: of other programs could be registered, or a model replaced by code.
LOCKED = "shared-memory,model-repository,trace,logging"


def runtime(plan: Plan) -> Path:
    """Return the folder that the server is started from; it is made anew at each start."""
    return plan.data_dir / RUNTIME


def build_runtime(plan: Plan) -> None:
    """Make ``<data>/triton``: a model repository for this machine, and a backend folder.

    Raises
    ------
    Misconfigured
        The model repository lacks the model or the version.
    """
    source = plan.model_repository / MODEL
    if not (source / str(plan.model_version) / "model.onnx").is_file():
        raise Misconfigured(
            Reason.MODEL_NOT_FOUND,
            f"There is no model version {plan.model_version} in {plan.model_repository}.",
            remedy="Name another with --model, or point DAFH_MODEL_REPOSITORY to a repository.",
        )
    if runtime(plan).exists():
        shutil.rmtree(runtime(plan))
    model = runtime(plan) / MODELS / MODEL
    (model / CONFIGURATION).parent.mkdir(parents=True)
    shutil.copyfile(source / "config.pbtxt", model / "config.pbtxt")
    (model / CONFIGURATION).write_text((source / CONFIGURATION).read_text() + ENVIRONMENT)
    (runtime(plan) / PYTHON).symlink_to(plan.environment.python)
    for version in source.iterdir():
        if version.name.isdigit():
            _link_files(version.resolve(), model / version.name)
    backend = runtime(plan) / BACKENDS / "python"
    backend.mkdir(parents=True)
    # Linked, not copied: the server's files find their libraries relative to where they lie.
    for path in plan.environment.backend_files:
        (backend / path.name).symlink_to(path)


def _link_files(version: Path, folder: Path) -> None:
    """Link a version's files, not its folder: the backend's Python writes a cache beside them."""
    folder.mkdir()
    for path in version.iterdir():
        if path.is_file():
            (folder / path.name).symlink_to(path)


def command(plan: Plan) -> Command:
    """Return how to start the server: gRPC and metrics on loopback, nothing else."""
    environment: TritonEnvironment = plan.environment
    prefix = shared_memory_prefix(plan.data_dir)
    return Command(
        (
            str(environment.binary),
            f"--model-repository={RUNTIME}/{MODELS}",
            f"--backend-directory={RUNTIME}/{BACKENDS}",
            f"--backend-config=python,shm-region-prefix-name={prefix}",
            "--model-config-name=cpu",
            "--disable-auto-complete-config",
            "--model-control-mode=none",
            f"--grpc-address={HOST}",
            f"--grpc-port={plan.ports.triton}",
            f"--grpc-restricted-protocol={LOCKED}:dafh-locked={secrets.token_hex(16)}",
            "--allow-http=false",
            f"--metrics-address={HOST}",
            f"--metrics-port={plan.ports.triton_metrics}",
            "--allow-gpu-metrics=false",
            "--pinned-memory-pool-byte-size=0",
            f"--exit-timeout-secs={EXIT_SECONDS}",
        ),
        {
            "LD_LIBRARY_PATH": environment.library_path,
            # ONNX Runtime, in the model's environment: nothing is counted or sent.
            "ORT_DISABLE_TELEMETRY": "1",
        },
    )


def close_shared_memory(data_dir: Path) -> None:
    """Keep other users out of the regions, through which pixels pass; Triton leaves them readable.

    Its umask does not help: the library that makes them sets their mode itself.
    """
    for region in SHARED_MEMORY.glob(f"{shared_memory_prefix(data_dir)}*"):
        region.chmod(0o600)


def sweep_shared_memory(data_dir: Path) -> None:
    """Remove the regions that a killed server left in ``/dev/shm``; call when it is gone."""
    for region in SHARED_MEMORY.glob(f"{shared_memory_prefix(data_dir)}*"):
        region.unlink(missing_ok=True)


def verify(plan: Plan, deadline: Deadline) -> ModelVersion:
    """Infer a known tensor and compare it with the same file on ONNX Runtime in this process.

    Returns
    -------
    ModelVersion
        What is served.

    Raises
    ------
    Misconfigured
        The server answers, but not what the model says.
    """
    reference = OnnxEncoder(plan.model_repository, plan.model_version)
    served = TritonEncoder(f"{HOST}:{plan.ports.triton}", plan.model_version)
    try:
        side = reference.model.side
        images = np.random.default_rng(0).integers(0, 256, (3, 1, side, side), dtype=np.uint8)
        expected = reference.encode(images, deadline, saliency=True)
        answered = served.encode(images, deadline, saliency=True)
        difference = _difference(expected, answered)
        # Written so that NaN is a difference too.
        if not difference <= TOLERANCE or served.model.hash != reference.model.hash:
            raise Misconfigured(
                Reason.ENCODER_WRONG,
                f"Triton answers, but not what the model file says (differs by {difference:.1g}).",
                remedy="Repair it with `python -m dafh_local.install --force`; if that does not "
                "help, publish the model version again with `dafh export repository`.",
            )
        return served.model
    finally:
        served.close()


def _difference(expected: Encoded, answered: Encoded) -> float:
    """Return the largest absolute difference; NaN where there is one in either."""
    pairs = [
        *((expected.hashes[bits], answered.hashes.get(bits)) for bits in expected.hashes),
        (expected.logits, answered.logits),
        (expected.saliency, answered.saliency),
    ]
    differences = [
        float(np.abs(wanted - got).max())
        if wanted is not None and got is not None and wanted.shape == got.shape
        else float("inf")
        for wanted, got in pairs
    ]
    return float(np.max(differences))
