"""What can be compared with the exported graph on this machine."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dafh.codes import BITS
from dafh.deadline import Deadline
from dafh.encoding.onnx import MODEL_FILE
from dafh.encoding.port import MODEL
from dafh.encoding.triton import TritonEncoder
from dafh.errors import InvalidInput, Reason
from dafh_export.checkpoint import load_checkpoint
from dafh_export.engine import PLAN_FILE
from dafh_export.model_file import Precision
from dafh_export.parity import Candidate, batched, onnx_backend
from dafh_export.plans import RECORD_FILE, read_record
from dafh_export.provenance import file_digest
from dafh_export.repository import SERVER_FILE, SERVER_SIDE, describe, write_configuration
from dafh_export.server import serving

#: Seconds for one batch on a server.
BATCH_SECONDS = 60.0


def candidates(
    run: Path, stack: ExitStack, *, triton: bool, plan: Path | None
) -> Iterator[Candidate]:
    """Yield backends, each made when it is asked for; servers end with `stack`.

    Parameters
    ----------
    run
        Run or version folder.
    stack
        Closes what was opened.
    triton
        Whether to start a real tritonserver on the CPU.
    plan
        Folder with ``model.plan`` and its record, for the GPU of this machine.
    """
    yield torch_candidate(run)
    for precision in Precision:
        path = run / precision.file
        if precision is not Precision.FP32 and path.is_file():
            yield Candidate(f"onnx-{precision}", onnx_backend(path), file_digest(path))
    if triton:
        yield stack.enter_context(triton_candidate(run))
    if plan is not None:
        yield stack.enter_context(plan_candidate(plan))


def torch_candidate(run: Path) -> Candidate:
    """Return the checkpoint's own network."""
    network = load_checkpoint(run).network

    def forward(images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        with torch.no_grad():
            hashes = network(torch.from_numpy(images)).hashes
        return [hashes[bits].numpy() for bits in BITS]

    return Candidate("torch", batched(forward))


@contextmanager
def triton_candidate(run: Path) -> Iterator[Candidate]:
    """Serve the run's fp32 graph as version 1 from a real tritonserver meanwhile."""
    with tempfile.TemporaryDirectory(prefix="dafh-export-") as folder:
        model = Path(folder) / MODEL
        (model / "1").mkdir(parents=True)
        for file in (MODEL_FILE, "calibration.json"):
            shutil.copyfile(run / file, model / "1" / file)
        shutil.copyfile(SERVER_SIDE, model / "1" / SERVER_FILE)
        write_configuration(model, [describe(model / "1")])
        with serving(Path(folder), 1) as server:
            encoder = TritonEncoder(server.address, 1)

            def encode(images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
                hashes = encoder.encode(images, Deadline.after(BATCH_SECONDS)).hashes
                return [hashes[bits] for bits in BITS]

            try:
                yield Candidate("triton-cpu", batched(encode))
            finally:
                encoder.close()


@contextmanager
def plan_candidate(folder: Path) -> Iterator[Candidate]:
    """Run a compiled plan on the GPU of this machine meanwhile.

    Raises
    ------
    InvalidInput
        The folder is no complete plan.
    Misconfigured
        There is no TensorRT.
    """
    from dafh_export.tensorrt import running

    record = read_record(folder)
    if record is None:
        raise InvalidInput(
            Reason.ARGUMENT_INVALID,
            f"{folder} holds no complete plan ({PLAN_FILE} and {RECORD_FILE}).",
            remedy="Build one with `dafh export tensorrt`.",
        )
    plan = (folder / PLAN_FILE).read_bytes()
    with running(plan) as run:
        yield Candidate(f"tensorrt-{record.precision}", batched(run), record.plan)
