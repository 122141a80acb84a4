"""A name in the environment has one meaning, whichever program reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import import_module

from pydantic_settings import BaseSettings

from dafh.settings import Settings
from tests.house.test_house import CHECKOUT, files

ROOTS = ("dafh", "services", "export")


def settings_classes() -> list[type[BaseSettings]]:
    """Return every settings class of what is shipped."""
    for path in files(*ROOTS, suffix=".py"):
        if re.search(r"^class \w+\(.*Settings\b.*\):", path.read_text(), re.MULTILINE):
            parts = path.relative_to(CHECKOUT).with_suffix("").parts
            import_module(".".join(parts if parts[0] == "dafh" else parts[1:]))
    return [one for one in below(BaseSettings) if one.__module__.startswith("dafh")]


def below(kind: type[BaseSettings]) -> list[type[BaseSettings]]:
    return [found for one in kind.__subclasses__() for found in (one, *below(one))]


def ambiguous(kinds: Iterable[type[BaseSettings]]) -> list[str]:
    """Return the variables that stand for something else in one class than in another."""
    defaults: dict[str, set[str]] = {}
    for kind in kinds:
        prefix = str(kind.model_config.get("env_prefix", ""))
        for name, field in kind.model_fields.items():
            default = repr(field.default_factory or field.default)
            defaults.setdefault(f"{prefix}{name}".upper(), set()).add(default)
    return sorted(name for name, seen in defaults.items() if len(seen) > 1)


def test_no_two_programs_read_one_variable_as_different_things() -> None:
    kinds = settings_classes()
    names = {kind.__name__ for kind in kinds}
    assert {"GatewaySettings", "JobSettings", "LocalSettings", "TelemetrySettings"} <= names
    assert ambiguous(kinds) == []


def test_a_variable_of_two_meanings_is_seen() -> None:
    class Door(Settings):
        patience: float = 1.0
        places: int = 2

    class Work(Settings):
        patience: float = 600.0
        places: int = 2

    assert ambiguous([Door, Work]) == ["DAFH_PATIENCE"]
