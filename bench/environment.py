"""On what, with what and when something was measured."""

from __future__ import annotations

import os
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

#: What the figures depend on, as installed; the standalone Milvus comes from its own pins.
PACKAGES = ("faiss-cpu", "grpcio", "milvus-lite", "numpy", "onnxruntime", "pymilvus")
_STANDALONE = Path(__file__).resolve().parent.parent / "constraints-milvus.txt"


def environment() -> dict[str, object]:
    """Return machine, versions and day, and how busy others keep the machine; takes a second.

    To be asked before anything is started.
    """
    pins = [line.split()[0] for line in _STANDALONE.read_text().splitlines() if "==" in line]
    versions = [f"{name} {version(name)}" for name in PACKAGES]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, {_memory_gib()} GiB, "
        f"{platform.system()}, Python {platform.python_version()}",
        "busy": busy(),
        "versions": ", ".join([*versions, *(pin.replace("==", " ") for pin in pins)]),
    }


def busy(seconds: float = 1.0) -> float:
    """Return the share of the processors' time, 0 to 1, that is spent while we do nothing."""
    before = _spent()
    time.sleep(seconds)
    after = _spent()
    idle, of = (late - early for early, late in zip(before, after, strict=True))
    return round(1 - idle / max(of, 1), 2)


def _spent() -> tuple[int, int]:
    """Return ticks that all processors were idle, and all ticks (proc_stat(5))."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
