"""The note a running embedded stack leaves in its data directory, so that programs find it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from dafh.errors import Misconfigured, Reason
from dafh.writing import write_atomically

NOTE = "stack.json"


class Process(BaseModel):
    """One process of the stack."""

    model_config = ConfigDict(frozen=True)

    pid: int
    #: Start time in clock ticks after boot (``/proc/PID/stat`` field 22): tells a reused pid apart.
    started: int
    #: ``host:port``.
    address: str


class Stack(BaseModel):
    """A running embedded stack."""

    model_config = ConfigDict(frozen=True)

    triton: Process
    milvus: Process
    gateway: Process
    #: ``host:port`` of Triton's Prometheus metrics.
    triton_metrics: str = ""
    patient_key_file: Path
    model_version: int
    #: Code length of the archive.
    bits: int

    @property
    def milvus_uri(self) -> str:
        """What pymilvus connects to."""
        return f"http://{self.milvus.address}"


def write_stack(data_dir: Path, stack: Stack) -> None:
    """Leave the note, at once or not at all."""
    write_atomically(data_dir / NOTE, f"{stack.model_dump_json(indent=2)}\n".encode())


def read_stack(data_dir: Path) -> Stack:
    """Read the note.

    Raises
    ------
    Misconfigured
        No stack was started from this data directory.
    """
    try:
        return Stack.model_validate_json((data_dir / NOTE).read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise Misconfigured(
            Reason.NOT_RUNNING,
            f"No stack runs from {data_dir}.",
            remedy="Start one with `dafh up`, or name a data directory with --data-dir.",
        ) from None
    except ValidationError:
        raise Misconfigured(
            Reason.START_FAILED,
            f"{data_dir / NOTE} is not a note of this version.",
            remedy="Stop what wrote it, remove the file and run `dafh up`.",
        ) from None
