"""Decodes a corpus again and again in one process: the slowest input, and how memory grew."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path

from dafh.errors import DafhError
from fuzz.targets import TARGETS

PAGE = 4096


def resident() -> float:
    """Return the resident memory of this process, MiB (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


def main() -> None:
    """Replay the target, corpus and number of rounds that the arguments name."""
    target, files, rounds = TARGETS[sys.argv[1]], sorted(Path(sys.argv[2]).iterdir()), sys.argv[3]
    slowest, warm = (0.0, ""), 0.0
    for turn in range(int(rounds)):
        for file in files:
            started = time.process_time()
            with suppress(DafhError):
                target(file.read_bytes())
            slowest = max(slowest, (time.process_time() - started, file.name))
        # The first rounds import libraries and fill their pools.
        if turn == 1:
            warm = resident()
    figures = {
        "slowest_seconds": round(slowest[0], 3),
        "slowest": slowest[1],
        "growth_mib": round(resident() - warm, 1),
    }
    sys.stdout.write(json.dumps(figures))


if __name__ == "__main__":
    main()
