"""What the programs in the pods can be told: their settings and their command lines."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, cast
from unittest import mock

import typer
from pydantic_settings import BaseSettings

from dafh.cli import build
from dafh.imaging.limits import Limits
from dafh.security.settings import TritonTlsSettings
from dafh.settings import (
    CHECKOUT,
    DecodeSettings,
    MilvusSettings,
    ModelSettings,
    PatientKeySettings,
    TritonSettings,
    XdgSettings,
    load,
)
from dafh.telemetry.metrics import Metrics
from dafh_gateway.settings import GatewaySettings
from dafh_jobs.settings import JobSettings, KubernetesSettings

#: What typer raises for wrong usage of any kind; by itself it has no public name.
_USAGE_ERROR = cast("type[Exception]", typer.BadParameter.__bases__[0])
_GATEWAY = CHECKOUT / "services" / "dafh_gateway"

#: Settings that the program of a component reads.
SETTINGS: dict[str, tuple[type[BaseSettings], ...]] = {
    "gateway": (GatewaySettings,),
    "triton": (),
    "jobs": (
        MilvusSettings,
        TritonSettings,
        TritonTlsSettings,
        ModelSettings,
        PatientKeySettings,
        DecodeSettings,
        JobSettings,
        KubernetesSettings,
        XdgSettings,
    ),
}


class WrongUsage(Exception):  # noqa: N818 - what it says of a command line
    """A program would refuse its arguments."""


def variables(kind: type[BaseSettings]) -> set[str]:
    """Return the environment variables that fill a settings class."""
    prefix = str(kind.model_config.get("env_prefix", ""))
    names = {f"{prefix}{name}".upper() for name in kind.model_fields}
    if f"{prefix}LIMITS" in names:
        names |= {f"{prefix}LIMITS__{name}".upper() for name in Limits.__dataclass_fields__}
    return names


def required(kind: type[BaseSettings]) -> set[str]:
    """Return those without which it cannot be made."""
    prefix = str(kind.model_config.get("env_prefix", ""))
    return {
        f"{prefix}{name}".upper()
        for name, field in kind.model_fields.items()
        if field.is_required()
    }


def read(kind: type[BaseSettings], environment: Mapping[str, str]) -> BaseSettings:
    """Return settings as the program makes them of its environment.

    Raises
    ------
    Misconfigured
        A value is missing or wrong.
    """
    with mock.patch.dict(os.environ, dict(environment), clear=True):
        return load(kind)


def parse_command(words: list[str]) -> dict[str, Any]:
    """Return what `dafh` makes of its arguments, without doing it.

    Raises
    ------
    WrongUsage
        There is no such command or option, a value is none of those there are, or one is missing.
    """
    command = typer.main.get_command(build(words))
    while commands := getattr(command, "commands", None):
        name, *words = words or [""]
        if name not in commands:
            raise WrongUsage(f"no such command: {name}")
        command = commands[name]
    try:
        context = command.make_context(command.name, list(words))
    except _USAGE_ERROR as error:
        raise WrongUsage(str(error)) from None
    return dict(context.params)


def gateway_stages() -> set[str]:
    """Return the names of the stages of a query, values of the label ``stage``."""
    return set(re.findall(r'= stage\("([^"]+)"', (_GATEWAY / "asking.py").read_text()))


def gateway_metrics() -> set[str]:
    """Return the names of what the gateway tells Prometheus."""
    watched = set(re.findall(r'"(dafh_[a-z_]+)"', (_GATEWAY / "observer.py").read_text()))
    families = [
        name
        for family in Metrics().registry.collect()
        for name in _samples(family.name, family.type)
    ]
    return watched | set(families)


def _samples(name: str, kind: str) -> list[str]:
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    return [f"{name}{ending}" for ending in endings.get(kind, [""])]
