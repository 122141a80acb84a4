"""docs/settings.md: the settings of the gateway, as their classes and comments tell them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from dafh.imaging.limits import MEBIBYTE, Limits
from dafh.settings import CHECKOUT, Settings, processors
from dafh_gateway.settings import GatewaySettings


def settings_page(generated: str) -> str:
    """Return docs/settings.md, with the remark `generated` on what it is made of."""
    lines = [
        "# Settings of the gateway",
        "",
        generated,
        "Environment variables, read when it starts. What is not set has its default; a value that",
        "cannot be is refused, and the message names the variable. Seconds and bytes are plain",
        "numbers, files are paths, several files a JSON list. What they are for is told in",
        "[Running the gateway](operations.md); jobs read those on decoding, Triton, Milvus and the",
        "patient key too.",
    ]
    for kind in GatewaySettings.__mro__:
        if issubclass(kind, Settings) and kind is not Settings:
            lines += ["", f"## {_title(kind)}", "", "| variable | default | meaning |"]
            lines += ["|---|---|---|", *(_row(kind, *of) for of in described(kind))]
    return "\n".join(lines) + "\n"


def described(kind: type[BaseSettings]) -> Iterator[tuple[list[str], str]]:
    """Yield the comments in a class of settings, each after the fields that it is about.

    A comment is about the fields below it, up to the next one.
    """
    own = vars(kind).get("__annotations__", {})
    names: list[str] = []
    said: list[str] = []
    for line in inspect.getsource(kind).splitlines():
        comment = re.fullmatch(r"    #: (.*)", line)
        field = re.match(r"    (\w+): ", line)
        if comment:
            if names:
                yield names, " ".join(said)
                names, said = [], []
            said.append(comment[1])
        elif field and field[1] in own:
            names.append(field[1])
    if names:
        yield names, " ".join(said)


def _title(kind: type[BaseSettings]) -> str:
    return (kind.__doc__ or "").partition("\n")[0].rstrip(".")


def _row(kind: type[BaseSettings], names: list[str], said: str) -> str:
    variables = ", ".join(f"`{_variable(name, kind.model_fields[name])}`" for name in names)
    defaults = ", ".join(_default(kind.model_fields[name]) for name in names)
    return f"| {variables} | {defaults} | {said.replace('``', '`')} |"


def _variable(name: str, field: FieldInfo) -> str:
    return f"DAFH_{name.upper()}" + ("__…" if isinstance(field.default, Limits) else "")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be set"
    if field.default_factory is not None:
        more = field.get_default(call_default_factory=True, validated_data={}) - processors()
        return "one for each processor" + (f", and {more} more" if more else "")
    match field.default:
        case None | "" | ():
            return "none"
        case Limits():
            return "[limits](limits.md)"
        case bool() as value:
            return str(value).lower()
        case Enum() as value:
            return f"{value.value}"
        case Path() as value if value.is_relative_to(CHECKOUT):
            return f"`{value.relative_to(CHECKOUT)}` of the checkout"
        case int() as value if value and value % MEBIBYTE == 0:
            return f"{value} ({value // MEBIBYTE} MiB)"
        case str() as value:
            return f"`{value}`"
        case value:
            return str(value)
