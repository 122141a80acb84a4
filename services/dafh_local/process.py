"""Processes of a stack: started in their own session, found again by a mark in their environment.

The mark names the part and the data directory, and is inherited by whatever a part starts. So every
process of a stack is found, also after `dafh up` was killed half-way; a reused pid is never taken
for ours, and no note on disk can go stale.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: Environment variable that marks a process; no program of ours reads it.
MARK = "DAFH_PART"
#: Seconds that children of a stopped process have to notice and go by themselves.
ORPHAN_SECONDS = 2.0
#: Everything talks on loopback; a proxy for the outside world must not get in between.
PROXIES = (
    "http_proxy",
    "https_proxy",
    "grpc_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
)


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, with what added to the environment that `dafh up` was called in."""

    arguments: tuple[str, ...]
    environment: dict[str, str]


@dataclass(frozen=True, slots=True)
class Member:
    """A living process of a part."""

    pid: int
    #: Start time in clock ticks after boot (``/proc/PID/stat`` field 22).
    started: int
    #: The process that `dafh up` started; the others are its children.
    leads: bool


def spawn(part: str, data_dir: Path, command: Command, log: Path) -> subprocess.Popen[bytes]:
    """Start a part in its own session, its output appended to `log`, its files private."""
    variables = {**command.environment, MARK: f"{part}@{data_dir}"}
    removed = [word for name in PROXIES for word in ("-u", name)]
    with log.open("ab") as output:
        # env(1) adds to the caller's environment, which this program does not read.
        return subprocess.Popen(
            [
                shutil.which("env") or "/usr/bin/env",
                *removed,
                *(f"{name}={value}" for name, value in variables.items()),
                *command.arguments,
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=data_dir,
            start_new_session=True,
            umask=0o077,
        )


def members(part: str, data_dir: Path) -> list[Member]:
    """Find the living processes of a part, the leading one first."""
    mark = f"{MARK}={part}@{data_dir}".encode()
    found = [
        member
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit() and (member := _member(int(folder.name), mark))
    ]
    return sorted(found, key=lambda member: (not member.leads, member.pid))


def _member(pid: int, mark: bytes) -> Member | None:
    try:
        if mark not in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return None
        stat = read_stat(pid)
    except OSError:
        # Gone meanwhile, or another user's.
        return None
    if stat is None:
        return None
    session, started = stat
    return Member(pid, started, leads=session == pid)


def read_stat(pid: int) -> tuple[int, int] | None:
    """Return session id and start time of a process; ``None`` where it is dead or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name in parentheses may hold spaces and parentheses itself.
    fields = text.rpartition(")")[2].split()
    if fields[0] in {"Z", "X"}:
        return None
    return int(fields[3]), int(fields[19])


def stop(part: str, data_dir: Path, grace: float) -> None:
    """End every process of a part: SIGTERM, `grace` seconds, then SIGKILL."""
    leaders = [member for member in members(part, data_dir) if member.leads]
    _signal(leaders, part, data_dir, signal.SIGTERM)
    _wait_gone(part, data_dir, grace, only_leaders=True)
    _wait_gone(part, data_dir, ORPHAN_SECONDS)
    rest = members(part, data_dir)
    if rest:
        _signal(rest, part, data_dir, signal.SIGKILL)
        _wait_gone(part, data_dir, ORPHAN_SECONDS)


def _wait_gone(part: str, data_dir: Path, seconds: float, *, only_leaders: bool = False) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        rest = members(part, data_dir)
        if not any(member.leads or not only_leaders for member in rest):
            return
        time.sleep(0.05)


def _signal(targets: Sequence[Member], part: str, data_dir: Path, number: signal.Signals) -> None:
    mark = f"{MARK}={part}@{data_dir}".encode()
    for target in targets:
        try:
            descriptor = os.pidfd_open(target.pid)
        except ProcessLookupError:
            continue
        try:
            # The descriptor holds on to this process: if it is ours now, the signal reaches ours.
            if _member(target.pid, mark) == target:
                signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            continue
        finally:
            os.close(descriptor)
