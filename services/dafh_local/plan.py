"""What one stack consists of: where it keeps things, its ports, its model."""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass
from pathlib import Path

from dafh_local.environment import TritonEnvironment
from dafh_local.ports import free_port


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports of a stack."""

    gateway: int
    triton: int
    triton_metrics: int
    milvus: int


@dataclass(frozen=True, slots=True)
class PortsWanted:
    """Ports as a caller asks for them: ``None`` where it does not care, 0 for any free one.

    The gateway's 0 holds for all that are ``None``: "a stack on free ports" is one option.
    """

    gateway: int | None = None
    triton: int | None = None
    triton_metrics: int | None = None
    milvus: int | None = None

    def choose(self, defaults: Ports) -> Ports:
        """Return the ports to take; a free one is chosen, a fixed one is not checked here."""
        anywhere = self.gateway == 0
        chosen: list[int] = []
        for number, default in zip(astuple(self), astuple(defaults), strict=True):
            asked = (0 if anywhere else default) if number is None else number
            chosen.append(asked or free_port(chosen))
        return Ports(*chosen)

    def allow(self, ports: Ports) -> bool:
        """Say whether `ports` are what was asked for."""
        return all(
            number in {None, 0, there}
            for number, there in zip(astuple(self), astuple(ports), strict=True)
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the parts of a stack need to start."""

    #: Absolute, links resolved: the mark of its processes names it.
    data_dir: Path
    ports: Ports
    environment: TritonEnvironment
    model_repository: Path
    model_version: int
    #: Code length of the archive.
    bits: int

    @property
    def patient_key_file(self) -> Path:
        """The key of patient pseudonyms."""
        return self.data_dir / "keys" / "patient.key"

    @property
    def database(self) -> Path:
        """Milvus Lite's file."""
        return self.data_dir / "milvus" / "dafh.db"


def log_file(data_dir: Path, part: str) -> Path:
    """Return where a part's output goes."""
    return data_dir / "logs" / f"{part}.log"


def shared_memory_prefix(data_dir: Path) -> str:
    """Return the prefix of this stack's regions in ``/dev/shm``."""
    return f"dafh_{hashlib.sha256(bytes(data_dir)).hexdigest()[:12]}_"
