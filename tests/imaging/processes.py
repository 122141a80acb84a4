"""Processes seen from outside: proc(5)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 30.0


def until(condition: Callable[[], bool]) -> None:
    """Wait for what must come to be."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.005)


def _parent(pid: int) -> tuple[int, str]:
    """Return parent and state of a process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0, "X"
    state, parent = text.rpartition(")")[2].split()[:2]
    return int(parent), state


def children(pid: int) -> list[int]:
    """Return the decoder processes that a process has started, oldest first."""
    return sorted(
        int(folder.name)
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit() and _is_decoder(int(folder.name), pid)
    )


def _is_decoder(pid: int, parent: int) -> bool:
    if _parent(pid)[0] != parent or not alive(pid):
        return False
    try:
        return b"dafh.imaging.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def alive(pid: int) -> bool:
    """Say whether a process is more than a name."""
    return _parent(pid)[1] not in ("X", "Z")


def descriptors(pid: int) -> int:
    """Return how many files a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def limits_of(pid: int) -> dict[str, str]:
    """Return the hard limits of a process by name."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return {line[:26].strip(): line[47:68].strip() for line in lines[1:]}


def status_of(pid: int) -> dict[str, str]:
    """Return the fields of proc(5) status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
