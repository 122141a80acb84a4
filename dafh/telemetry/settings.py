"""Settings of what an operator sees."""

from __future__ import annotations

from pathlib import Path

from dafh.settings import Settings


class TelemetrySettings(Settings):
    """Where logs, traces and the audit go."""

    #: Least level that is logged.
    log_level: str = "INFO"
    #: Folder of the audit, one file a process; standard output without.
    audit_dir: Path | None = None
    #: Whether calls are written down at all.
    audit: bool = True
    #: Collector of traces, ``http://host:4317``; "" for none.
    otlp_endpoint: str = ""
