"""Pages that are made of tables and of the contract: ``python -m dafh_gateway.reference DOCS``.

It reads the descriptors that ``protos/generate.py --descriptors`` writes.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from google.api import field_behavior_pb2
from google.protobuf import descriptor_pb2

from dafh_gateway.permissions import PERMISSIONS
from dafh_gateway.settings_page import settings_page
from dafh_gateway.statuses import CODES, REASONS, RETRY_AFTER

PACKAGE = "dafh.v1"
GENERATED = "<!-- Made by `make docs`; change what it is made of instead. -->\n"

Place = tuple[int, ...]
#: Numbers of fields in descriptor.proto.
MESSAGES, ENUMS, SERVICES = 4, 5, 6
FIELDS, NESTED_MESSAGES, NESTED_ENUMS, VALUES, METHODS = 2, 3, 4, 2, 2


def errors_page() -> str:
    """Return docs/errors.md."""
    lines = [
        "# Errors",
        "",
        GENERATED,
        "Every error is a `google.rpc.Status` with an `ErrorInfo` of domain `dafh`. Its `reason`",
        "is one of those below and never changes its meaning; its `metadata` may hold a `remedy`",
        "for people and the `subject` (request field or DICOM element) at fault. A field at fault",
        "is named in a `BadRequest`, and where waiting helps a `RetryInfo` says how long",
        f"({RETRY_AFTER} s). No error says anything of a patient.",
        "",
        "## Status codes",
        "",
        "| code | `RetryInfo` | who must act |",
        "|---|---|---|",
    ]
    # Two classes of errors may be one status to a caller.
    lines += dict.fromkeys(
        f"| {kind.code.name} | {'yes' if error.waiting_helps else ''} | {kind.who} |"
        for error, kind in CODES.items()
    )
    lines += ["", "## Reasons", "", "| reason | what happened |", "|---|---|"]
    lines += [f"| {reason} | {meaning} |" for reason, meaning in sorted(REASONS.items())]
    return "\n".join(lines) + "\n"


def api_pages(descriptors: descriptor_pb2.FileDescriptorSet) -> dict[str, str]:
    """Return docs/api.md, and a page for the messages of each file in docs/api."""
    of_messages = {}
    services: list[str] = []
    links: list[str] = []
    for file in descriptors.file:
        if file.package != PACKAGE:
            continue
        name = Path(file.name).stem
        links.append(f"[{name}](api/{name}.md)")
        comments = {
            tuple(location.path): _text(location.leading_comments)
            for location in file.source_code_info.location
        }
        for place, service in enumerate(file.service):
            services += _service(service, (SERVICES, place), comments)
        messages = [f"# Messages of {name}.proto", "", GENERATED]
        for place, message in enumerate(file.message_type):
            messages += _message(message, message.name, (MESSAGES, place), comments)
        for place, enum in enumerate(file.enum_type):
            messages += _enum(enum, enum.name, (ENUMS, place), comments)
        of_messages[f"api/{name}.md"] = "\n".join(messages)
    head = [
        "# The API",
        "",
        GENERATED,
        f"Package `{PACKAGE}`. Its errors are in [errors.md](errors.md);",
    ]
    head += [f"its messages in {', '.join(links)}.", ""]
    return of_messages | {"api.md": "\n".join([*head, *services])}


def pages(descriptors: descriptor_pb2.FileDescriptorSet) -> dict[str, str]:
    """Return all pages, by their paths in docs."""
    made = {"errors.md": errors_page(), "settings.md": settings_page(GENERATED)} | api_pages(
        descriptors
    )
    return {name: page.rstrip("\n") + "\n" for name, page in made.items()}


def _service(
    service: descriptor_pb2.ServiceDescriptorProto, path: Place, comments: dict[Place, str]
) -> Iterator[str]:
    yield from (f"## {service.name}", "", comments[path], "")
    for place, method in enumerate(service.method):
        asked = _stream(method.client_streaming) + _short(method.input_type)
        answered = _stream(method.server_streaming) + _short(method.output_type)
        roles = PERMISSIONS[f"{PACKAGE}.{service.name}.{method.name}"]
        yield from (
            f"### {method.name}",
            "",
            f"`{method.name}({asked}) returns ({answered})`, for the roles "
            f"{', '.join(sorted(roles))}.",
            "",
            comments[(*path, METHODS, place)],
            "",
        )


def _message(
    message: descriptor_pb2.DescriptorProto, name: str, path: Place, comments: dict[Place, str]
) -> Iterator[str]:
    yield from (f"## {name}", "", comments[path], "", "| field | type | |", "|---|---|---|")
    for place, field in enumerate(message.field):
        text = comments[(*path, FIELDS, place)].replace("\n", " ").replace("|", "\\|")
        yield f"| {field.number} `{field.name}` | {_type(field)} | {_behaviour(field)}{text} |"
    yield ""
    for place, nested in enumerate(message.nested_type):
        yield from _message(
            nested, f"{name}.{nested.name}", (*path, NESTED_MESSAGES, place), comments
        )
    for place, enum in enumerate(message.enum_type):
        yield from _enum(enum, f"{name}.{enum.name}", (*path, NESTED_ENUMS, place), comments)


def _enum(
    enum: descriptor_pb2.EnumDescriptorProto, name: str, path: Place, comments: dict[Place, str]
) -> Iterator[str]:
    yield from (f"## {name}", "", comments[path], "", "| value | |", "|---|---|")
    for place, value in enumerate(enum.value):
        text = comments[(*path, VALUES, place)].replace("\n", " ")
        yield f"| {value.number} `{value.name}` | {text} |"
    yield ""


def _type(field: descriptor_pb2.FieldDescriptorProto) -> str:
    if field.type_name:
        name = _short(field.type_name)
    else:
        name = (
            descriptor_pb2.FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
        )
    repeated = field.label == descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
    return f"{'repeated ' if repeated else ''}{name}"


def _behaviour(field: descriptor_pb2.FieldDescriptorProto) -> str:
    # The types of googleapis-common-protos do not tell what an option extends.
    told = cast("Any", field.options).Extensions[field_behavior_pb2.field_behavior]
    required = field_behavior_pb2.REQUIRED in told
    return "**Required.** " if required else ""


def _stream(streaming: bool) -> str:
    return "stream " if streaming else ""


def _short(name: str) -> str:
    return name.removeprefix(f".{PACKAGE}.").removeprefix(".")


def _text(comment: str) -> str:
    """Return a comment without what is meant for the linter."""
    lines = [line.removeprefix(" ") for line in comment.strip("\n").split("\n")]
    text = "\n".join(line for line in lines if not re.match(r"buf:lint:", line))
    return text.strip()


def main() -> None:
    """Write the pages."""
    parser = argparse.ArgumentParser(prog="python -m dafh_gateway.reference")
    parser.add_argument("descriptors", type=Path)
    parser.add_argument("docs", type=Path)
    options = parser.parse_args()
    read = descriptor_pb2.FileDescriptorSet.FromString(options.descriptors.read_bytes())
    for name, page in pages(read).items():
        file = options.docs / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page)


if __name__ == "__main__":
    main()
