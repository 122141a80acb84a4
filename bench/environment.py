"""On what, with what and when something was measured."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

#: What the figures depend on, as installed; the standalone Milvus comes from its own pins.
PACKAGES = ("faiss-cpu", "grpcio", "milvus-lite", "numpy", "onnxruntime", "pymilvus")
_STANDALONE = Path(__file__).resolve().parent.parent / "constraints-milvus.txt"


def environment() -> dict[str, object]:
    """Return machine, versions and day, and how busy the machine was by then."""
    pins = [line.split()[0] for line in _STANDALONE.read_text().splitlines() if "==" in line]
    versions = [f"{name} {version(name)}" for name in PACKAGES]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, {_memory_gib()} GiB, "
        f"{platform.system()}, Python {platform.python_version()}",
        "load": round(os.getloadavg()[0], 1),
        "versions": ", ".join([*versions, *(pin.replace("==", " ") for pin in pins)]),
    }


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
