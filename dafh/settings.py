"""Typed settings, composed per deployable; nothing else reads the environment.

Every field may be set by the environment variable ``DAFH_`` + its name in capitals.
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from dafh.codes import DEFAULT_BITS
from dafh.errors import Misconfigured, Reason
from dafh.imaging.limits import DEFAULT_LIMITS, Limits, Policy

Fragment = TypeVar("Fragment", bound=BaseSettings)

CHECKOUT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """Base of every settings class."""

    model_config = SettingsConfigDict(env_prefix="DAFH_", extra="ignore", frozen=True)


class XdgSettings(BaseSettings):
    """Where the user's desktop keeps state (XDG Base Directory Specification)."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    xdg_data_home: Path = Path("~/.local/share")


class DataSettings(Settings):
    """Where the embedded stack keeps its state."""

    data_dir: Path = Field(default_factory=lambda: default_data_dir())


class ModelSettings(Settings):
    """Which model version encodes, and where versions lie on disk."""

    #: Folder of model versions, for whoever runs one without asking Triton.
    model_repository: Path = CHECKOUT / "model_repository"
    #: Version that codes archives that are new, and images where no archive says which.
    model_version: int = 2


class TritonSettings(Settings):
    """Where Triton serves gRPC."""

    #: ``host:port``; several that take turns as ``dns:///name:port`` or ``ipv4:a:port,b:port``.
    triton_address: str = "127.0.0.1:8001"


class Tenancy(StrEnum):
    """How the cases of tenants are kept apart in Milvus; every expression names the tenant anyway.

    It is settled when an archive is made.
    """

    #: Each coding of each archive has a collection of its own.
    COLLECTION = "collection"
    #: Codings of one model and length share a collection: for many small tenants.
    SHARED = "shared"
    #: As `COLLECTION`, in a database for each tenant, which Milvus can give to its own user.
    DATABASE = "database"


class MilvusSettings(Settings):
    """Where Milvus serves, how the two recognise each other, and how an archive is coded."""

    #: ``http://host:port`` on this machine, ``https://host:port`` with the three files below.
    milvus_uri: str = "http://127.0.0.1:19530"
    #: "" is the server's default database.
    milvus_database: str = ""
    #: How tenants are kept apart: ``collection``, ``shared`` or ``database``.
    milvus_tenancy: Tenancy = Tenancy.COLLECTION
    #: PEM files of mutual TLS: who signed the server's certificate, our certificate, its key.
    milvus_ca: Path | None = None
    milvus_certificate: Path | None = None
    milvus_key: Path | None = None
    #: Name in the server's certificate, where it is not the host of the URI.
    milvus_server_name: str = ""
    #: File with ``user:password`` or a token, mode 0600.
    milvus_credentials: Path | None = None
    #: Code length of archives that are new.
    bits: int = DEFAULT_BITS


class DecodeSettings(Settings):
    """How many processes decode files, and what is refused.

    A single limit is set by two underscores and its name: ``DAFH_LIMITS__SECONDS``.
    """

    model_config = SettingsConfigDict(env_nested_delimiter="__")

    #: Processes that decode files; each may take ``DAFH_LIMITS__MEMORY_BYTES``.
    decode_workers: int = Field(default_factory=lambda: processors(), ge=1, le=256)
    #: What one file may be and cost: a variable for each limit.
    limits: Limits = DEFAULT_LIMITS
    #: Refuse what says that text is burned into its pixels, instead of warning.
    refuse_burned_in: bool = False
    #: Take DICOM files that some system would run as a program or unpack.
    allow_executable_preamble: bool = False

    @property
    def policy(self) -> Policy:
        """What is refused."""
        return Policy(
            limits=self.limits,
            refuse_burned_in=self.refuse_burned_in,
            allow_executable_preamble=self.allow_executable_preamble,
        )


class PatientKeySettings(Settings):
    """The file that holds the key of patient pseudonyms."""

    #: 64 hexadecimal digits, mode 0600; the same for gateway and jobs.
    patient_key_file: Path


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


def default_data_dir() -> Path:
    """Return ``dafh`` below the user's XDG data home."""
    return XdgSettings().xdg_data_home.expanduser() / "dafh"


def load(kind: type[Fragment]) -> Fragment:
    """Read settings of one kind.

    Raises
    ------
    Misconfigured
        A value is missing or wrong; the message names each, never a value.
    """
    try:
        return kind()
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise Misconfigured(
            Reason.SETTING_INVALID, f"The settings are not usable: {faults}."
        ) from None


def silence_onnx_runtime() -> None:
    """Keep ONNX Runtime from counting its use; to be called before it is imported.

    Its own switch comes too late: importing it already writes a device id below the home.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
