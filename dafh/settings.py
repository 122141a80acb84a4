"""Typed settings, composed per deployable; nothing else reads the environment.

Every field may be set by the environment variable ``DAFH_`` + its name in capitals.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from dafh.codes import DEFAULT_BITS
from dafh.errors import Misconfigured, Reason

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

    model_repository: Path = CHECKOUT / "model_repository"
    model_version: int = 1


class TritonSettings(Settings):
    """Where Triton serves gRPC."""

    triton_address: str = "127.0.0.1:8001"


class MilvusSettings(Settings):
    """Where Milvus serves, and how an archive is coded."""

    milvus_uri: str = "http://127.0.0.1:19530"
    bits: int = DEFAULT_BITS


class PatientKeySettings(Settings):
    """The file that holds the key of patient pseudonyms (64 hexadecimal digits, mode 0600)."""

    patient_key_file: Path


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
