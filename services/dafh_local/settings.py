"""Settings of the embedded stack."""

from __future__ import annotations

import sys
from pathlib import Path

from dafh.settings import DataSettings, MilvusSettings, ModelSettings


class LocalSettings(DataSettings, ModelSettings, MilvusSettings):
    """What `dafh up` needs besides its options."""

    gateway_port: int = 50051
    triton_port: int = 8001
    triton_metrics_port: int = 8002
    milvus_port: int = 19530
    #: Triton's server and the Python environment of its models, see `dafh_local.install`.
    triton_home: Path = Path(sys.prefix) / "share" / "dafh" / "triton"
    #: Seconds until each process must answer.
    start_seconds: float = 60.0
    #: Free space below which nothing is started, MiB: a full disk is found before, not in, a write.
    minimum_free_mib: int = 64
