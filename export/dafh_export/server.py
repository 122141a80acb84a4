"""A real tritonserver on loopback, to try a model repository before anyone depends on it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

import numpy as np

from dafh.codes import DEFAULT_BITS
from dafh.deadline import Deadline
from dafh.encoding.port import IMAGE, MODEL
from dafh.encoding.triton import TritonEncoder
from dafh.errors import FailedPrecondition, Reason, Unavailable
from dafh.settings import load
from dafh_export.golden import TOLERANCE, by_tensor, difference, read_golden
from dafh_local import triton
from dafh_local.environment import TritonEnvironment
from dafh_local.health import is_serving
from dafh_local.plan import Plan, Ports, log_file
from dafh_local.ports import address, free_port, listens
from dafh_local.process import Command, members, spawn, stop
from dafh_local.settings import LocalSettings

PART = "triton"
#: Seconds that the server has to start, load and warm up.
START_SECONDS = 60.0
STOP_SECONDS = triton.EXIT_SECONDS + 5.0
#: Seconds for one look at its health.
ASK_SECONDS = 0.5
#: On a busy machine the python backend now and then aborts while it starts, and not the next time.
STARTS = 2


@dataclass(frozen=True, slots=True)
class Server:
    """A tritonserver that runs."""

    #: ``host:port`` of its gRPC endpoint.
    address: str
    #: The server's own copy of the model: a link per file of each version.
    model: Path


@contextmanager
def serving(
    repository: Path, version: int, *options: str, deadline: Deadline | None = None
) -> Iterator[Server]:
    """Run the embedded stack's Triton on a model repository meanwhile.

    Parameters
    ----------
    repository
        Folder of model folders; only read.
    version
        A version that it must hold.
    options
        More options of tritonserver; the last of two equal ones counts.
    deadline
        By when it must answer.

    Raises
    ------
    Misconfigured
        Triton's server environment is not installed, or the version is not there.
    FailedPrecondition
        The server ended: it could not load the model.
    """
    with tempfile.TemporaryDirectory(prefix="dafh-export-") as folder:
        plan = _plan(Path(folder).resolve(), repository, version)
        plan.environment.require()
        triton.build_runtime(plan)
        children: list[Popen[bytes]] = []
        try:
            _start(plan, options, children, deadline or Deadline.after(START_SECONDS))
            triton.close_shared_memory(plan.data_dir)
            model = triton.runtime(plan) / triton.MODELS / MODEL
            yield Server(address(plan.ports.triton), model)
        finally:
            _stop(plan, children)


def require_golden(repository: Path, versions: list[int], deadline: Deadline) -> None:
    """Load a repository in a real server and compare every version with its golden outputs.

    Raises
    ------
    FailedPrecondition
        It does not load, or a version answers otherwise than when it was published.
    """
    with serving(repository, versions[-1], deadline=deadline) as server:
        for version in versions:
            golden = read_golden(repository / MODEL / str(version))
            images = np.asarray(golden[IMAGE], np.uint8)
            encoder = TritonEncoder(server.address, version)
            try:
                answer = encoder.encode(images, deadline, saliency=True)
            finally:
                encoder.close()
            differs = difference(golden, by_tensor(answer))
            # Written so that NaN is a difference too.
            if not differs <= TOLERANCE:
                raise FailedPrecondition(
                    Reason.ENCODER_WRONG,
                    f"Triton answers for version {version}, but not with its golden outputs "
                    f"(differs by {differs:.1g}).",
                    remedy="Look at what changed between export and publication; export it again.",
                )


def _plan(data_dir: Path, repository: Path, version: int) -> Plan:
    grpc, metrics = free_port(), free_port()
    return Plan(
        data_dir=data_dir,
        ports=Ports(gateway=0, triton=grpc, triton_metrics=metrics, milvus=0),
        environment=TritonEnvironment(load(LocalSettings).triton_home.expanduser().resolve()),
        model_repository=repository,
        model_version=version,
        bits=DEFAULT_BITS,
    )


def _start(
    plan: Plan, options: tuple[str, ...], children: list[Popen[bytes]], deadline: Deadline
) -> None:
    log = log_file(plan.data_dir, PART)
    log.parent.mkdir()
    asked = triton.command(plan)
    command = Command((*asked.arguments, *options), asked.environment)
    for _ in range(STARTS):
        child = spawn(PART, plan.data_dir, command, log)
        children.append(child)
        if _answers(plan, child, deadline):
            return
        _stop(plan, children)
        if child.returncode >= 0:
            break
    raise FailedPrecondition(
        Reason.MODEL_NOT_LOADED,
        f"Triton did not load the model repository{_last_words(log)}.",
        remedy="Look at the named version; the repository that is served was not touched.",
    )


def _stop(plan: Plan, children: list[Popen[bytes]]) -> None:
    stop(PART, plan.data_dir, STOP_SECONDS)
    for child in children:
        # Killed by now, if it did not go.
        child.wait(STOP_SECONDS)
    triton.sweep_shared_memory(plan.data_dir)


def _answers(plan: Plan, child: Popen[bytes], deadline: Deadline) -> bool:
    """Wait until the server is ready; ``False`` where it ended instead."""
    while child.poll() is None:
        deadline.remaining("Triton answered")
        pids = [member.pid for member in members(PART, plan.data_dir)]
        try:
            if listens(plan.ports.triton, pids) and is_serving(
                address(plan.ports.triton), "", ASK_SECONDS
            ):
                return True
        except Unavailable:
            # Not yet.
            continue
        finally:
            time.sleep(0.05)
    return False


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if " failed" in line]
    return f": {lines[-1].strip()[:300]}" if lines else ""
