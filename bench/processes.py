"""What processes take: processor time and memory, with all that they started."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


def tree(pid: int) -> Iterator[int]:
    """Yield a process and all that it has started."""
    yield pid
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree(int(child))


def spent(root: int) -> float:
    """Return processor seconds of a process, of what it started and what of that has ended."""
    ticks = 0
    for pid in tree(root):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def resident(root: int) -> float:
    """Return the memory of a process and what it started, MiB; what they share counts once."""
    kibibytes = 0
    for pid in tree(root):
        with suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            kibibytes += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return round(kibibytes / 1024, 1)


@contextmanager
def watched(pids: Mapping[str, int], every: float) -> Iterator[dict[str, list[float]]]:
    """Yield what fills, until the block ends, with the memory of processes, MiB, by their names."""
    seen: dict[str, list[float]] = {name: [] for name in pids}
    over = threading.Event()

    def look() -> None:
        while not over.wait(every):
            for name, pid in pids.items():
                seen[name].append(resident(pid))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


class Spent:
    """Processor seconds of processes since this was made."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._before = {name: spent(pid) for name, pid in pids.items()}

    def each(self, calls: int) -> dict[str, float]:
        """Return milliseconds a call, by name of the process."""
        return {
            name: round(1000 * (spent(pid) - self._before[name]) / calls, 2)
            for name, pid in self._pids.items()
        }
