"""Starts and stops a stack: `up` and `down`.

The parts are three independent processes, each in its own session; no process of ours has to live
for them to work. What is started is found again by its mark (`dafh_local.process`), so that a
killed `up` leaves nothing that `down` or the next `up` cannot find.
"""

from __future__ import annotations

import fcntl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dafh.deadline import Deadline
from dafh.errors import Misconfigured, Reason
from dafh.security.keys import create_key, load_key
from dafh.stack import NOTE, Process, Stack, write_stack
from dafh_local import triton
from dafh_local.disk import make_private, require_space, writing
from dafh_local.environment import require_milvus
from dafh_local.failure import explain, set_aside
from dafh_local.parts import GATEWAY, MILVUS, PARTS, TRITON, Part
from dafh_local.plan import Plan, log_file
from dafh_local.ports import address, require_free
from dafh_local.process import members, spawn, stop
from dafh_local.status import State, ask, look_at, running_note

#: Seconds that a part has to answer before `up` takes it for hung and starts it again.
HUNG_SECONDS = 10.0
#: Seconds that another `up` or `down` on the same data directory may take before we give up.
LOCK_SECONDS = 90.0


class Interrupted(Exception):  # noqa: N818 - not an error: the user asked for it
    """The user asked to stop while the stack was starting."""


@dataclass(slots=True)
class Started:
    """What `start` did."""

    stack: Stack
    #: Names of the parts that it started; none where all were running.
    parts: tuple[str, ...]
    #: Their processes, for whoever stays: an ended child is only gone when its parent looked.
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)


def start(
    plan: Plan,
    *,
    start_seconds: float,
    minimum_free_mib: int,
    stopping: threading.Event,
) -> Started:
    """Start what does not run; all that this call started is stopped again if it fails.

    Parameters
    ----------
    plan
        What to start.
    start_seconds
        Time within which each part must answer.
    minimum_free_mib
        Free space needed, MiB.
    stopping
        Set by a signal handler: give up and clean up.

    Raises
    ------
    Misconfigured
        NOT_INSTALLED, LIBRARY_MISSING, PORT_IN_USE, DISK_FULL, MODEL_NOT_FOUND, START_FAILED, …
    Interrupted
        `stopping` was set.
    """
    with _locked(plan.data_dir), writing(plan.data_dir), ExitStack() as undo:
        note = running_note(plan.data_dir)
        missing = [part for part in PARTS if not _answers(part, plan.data_dir, note)]
        if note is None:
            # Of a stack that is gone, or that was never complete.
            (plan.data_dir / NOTE).unlink(missing_ok=True)
        elif not missing:
            return Started(note, ())
        _prepare(plan, missing, minimum_free_mib)
        children: dict[str, subprocess.Popen[bytes]] = {}
        # Triton and Milvus start side by side; the gateway stands on both.
        for stage in ((TRITON, MILVUS), (GATEWAY,)):
            for part in stage:
                if part in missing:
                    undo.callback(_stop_part, part, plan.data_dir)
                    children[part.name] = _launch(part, plan)
            for part in stage:
                child = children.get(part.name)
                try:
                    _wait_ready(part, plan, child, start_seconds, stopping)
                except Misconfigured:
                    if part is not TRITON or child is None or (child.poll() or 0) >= 0:
                        raise
                    # On a busy machine its python backend now and then aborts (SIGABRT, a lock in
                    # its shared memory) while it starts. It has been seen to start the next time.
                    _stop_part(part, plan.data_dir)
                    child = children[part.name] = _launch(part, plan)
                    _wait_ready(part, plan, child, start_seconds, stopping)
            if TRITON in stage:
                triton.close_shared_memory(plan.data_dir)
                triton.verify(plan, Deadline.after(start_seconds))
        stack = _note(plan)
        write_stack(plan.data_dir, stack)
        undo.pop_all()
    return Started(stack, tuple(children), list(children.values()))


def stop_all(data_dir: Path) -> tuple[str, ...]:
    """Stop every process of a stack and remove its traces; return the names of what ran."""
    if not data_dir.is_dir():
        return ()
    with _locked(data_dir):
        ran = tuple(part.name for part in PARTS if members(part.name, data_dir))
        # First: whoever watches sees a stack that is being stopped, not one that falls apart.
        (data_dir / NOTE).unlink(missing_ok=True)
        for part in reversed(PARTS):
            _stop_part(part, data_dir)
    return ran


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Let one `up` or `down` at a time work on a data directory."""
    make_private(data_dir)
    with writing(data_dir):
        lock = (data_dir / ".lock").open("w")
    with lock:
        end = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Misconfigured(
                        Reason.ALREADY_RUNNING,
                        f"Another `dafh up` or `dafh down` is at work on {data_dir}.",
                        remedy="Wait for it to finish.",
                    ) from None
            time.sleep(0.1)
        yield


def _answers(part: Part, data_dir: Path, note: Stack | None) -> bool:
    if note is None:
        return False
    # A gateway that waits for another part is well; it recovers when that part is back.
    return look_at(part, data_dir, note, HUNG_SECONDS).state in {State.SERVING, State.WAITING}


def _prepare(plan: Plan, missing: list[Part], minimum_free_mib: int) -> None:
    """Check all that can be checked before anything runs; clear what dead parts left."""
    require_space(plan.data_dir, minimum_free_mib)
    for name in ("logs", "milvus"):
        (plan.data_dir / name).mkdir(mode=0o700, exist_ok=True)
    create_key(plan.patient_key_file)
    load_key(plan.patient_key_file)
    for part in missing:
        _stop_part(part, plan.data_dir)
    for part in missing:
        for option, port in part.ports.items():
            require_free(port(plan.ports), part.title, option)
    if TRITON in missing:
        plan.environment.require()
        triton.build_runtime(plan)
    if MILVUS in missing:
        require_milvus()


def _launch(part: Part, plan: Plan) -> subprocess.Popen[bytes]:
    log = log_file(plan.data_dir, part.name)
    set_aside(log)
    return spawn(part.name, plan.data_dir, part.command(plan), log)


def _wait_ready(
    part: Part,
    plan: Plan,
    child: subprocess.Popen[bytes] | None,
    seconds: float,
    stopping: threading.Event,
) -> None:
    end = time.monotonic() + seconds
    where = address(part.port(plan.ports))
    while True:
        if stopping.is_set():
            raise Interrupted
        if child is not None and child.poll() is not None:
            raise explain(part, plan.data_dir, f"ended at once (exit code {child.returncode})")
        pids = [member.pid for member in members(part.name, plan.data_dir)]
        if ask(part, where, pids, seconds=0.5) is State.SERVING:
            return
        if time.monotonic() > end:
            raise explain(part, plan.data_dir, f"did not answer within {seconds:.0f} s")
        stopping.wait(0.05)


def _note(plan: Plan) -> Stack:
    processes = {}
    for part in PARTS:
        leaders = [member for member in members(part.name, plan.data_dir) if member.leads]
        if not leaders:
            raise explain(part, plan.data_dir, "ended while the others started")
        processes[part.name] = Process(
            pid=leaders[0].pid,
            started=leaders[0].started,
            address=address(part.port(plan.ports)),
        )
    return Stack(
        triton=processes["triton"],
        milvus=processes["milvus"],
        gateway=processes["gateway"],
        triton_metrics=address(plan.ports.triton_metrics),
        patient_key_file=plan.patient_key_file,
        model_version=plan.model_version,
        bits=plan.bits,
    )


def _stop_part(part: Part, data_dir: Path) -> None:
    stop(part.name, data_dir, part.grace)
    if part is TRITON:
        triton.sweep_shared_memory(data_dir)
