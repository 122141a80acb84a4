"""Which parts of a stack run and answer, asked of the processes and servers themselves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from dafh.errors import Misconfigured, Reason, Unavailable
from dafh.stack import Process, Stack, read_stack
from dafh_local.parts import PARTS, Part
from dafh_local.ports import listens, port_of
from dafh_local.process import members

#: Seconds that a server has to answer; a stopped one is reported within less than five.
ASK_SECONDS = 2.0


class State(StrEnum):
    """How a part is."""

    #: It answers and serves.
    SERVING = "serving"
    #: It answers that it cannot serve now, for want of another part.
    WAITING = "waiting"
    #: Its process lives and does not answer.
    SILENT = "silent"
    #: Its process is gone.
    DOWN = "down"


class PartStatus(BaseModel):
    """How one part is."""

    model_config = ConfigDict(frozen=True)

    name: str
    state: State
    #: ``host:port``; "" where no note says it.
    address: str = ""
    pid: int | None = None


class StackStatus(BaseModel):
    """How a stack is."""

    model_config = ConfigDict(frozen=True)

    data_dir: Path
    #: Whether every part serves.
    healthy: bool
    parts: tuple[PartStatus, ...]
    model_version: int | None = None


def look(data_dir: Path) -> StackStatus:
    """Ask every part, all at once.

    Raises
    ------
    Misconfigured
        NOT_RUNNING: nothing was started from this directory, or all of it was stopped.
    """
    try:
        stack = read_stack(data_dir)
    except Misconfigured as error:
        leftover = any(members(part.name, data_dir) for part in PARTS)
        if error.reason is not Reason.NOT_RUNNING or not leftover:
            raise
        # A start that was killed half-way left processes and no note.
        stack = None
    with ThreadPoolExecutor(len(PARTS)) as pool:
        states = tuple(pool.map(lambda part: look_at(part, data_dir, stack), PARTS))
    return StackStatus(
        data_dir=data_dir,
        healthy=all(state.state is State.SERVING for state in states),
        parts=states,
        model_version=stack.model_version if stack else None,
    )


def running_note(data_dir: Path) -> Stack | None:
    """Return the note of a stack of which something still runs; a note of a dead one is void."""
    if not any(members(part.name, data_dir) for part in PARTS):
        return None
    try:
        return read_stack(data_dir)
    except Misconfigured:
        return None


def look_at(
    part: Part, data_dir: Path, stack: Stack | None, seconds: float = ASK_SECONDS
) -> PartStatus:
    """Ask one part, giving it `seconds` to answer."""
    found = members(part.name, data_dir)
    address = noted(part, stack).address if stack else ""
    leader = next((member.pid for member in found if member.leads), None)
    state = State.DOWN
    if leader is not None:
        state = ask(part, address, [member.pid for member in found], seconds)
    return PartStatus(name=part.name, state=state, address=address, pid=leader)


def ask(part: Part, address: str, pids: list[int], seconds: float) -> State:
    """Ask a living part at an address ("" where unknown) for its state."""
    if not address or not listens(port_of(address), pids):
        return State.SILENT
    try:
        return State.SERVING if part.ask(address, seconds) else State.WAITING
    except Unavailable:
        return State.SILENT


def noted(part: Part, stack: Stack) -> Process:
    """Return what the note says of a part."""
    processes = {"triton": stack.triton, "milvus": stack.milvus, "gateway": stack.gateway}
    return processes[part.name]
