"""What the contract promises to those who read nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import grpc
import pytest
from google.api import field_behavior_pb2, resource_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.message import Message

from dafh.errors import Reason
from dafh_gateway.statuses import CODES, REASONS

GENERATE = Path(__file__).resolve().parents[2] / "protos" / "generate.py"

#: Every method.
METHODS = (
    "dafh.v1.ArchiveService.CreateArchive",
    "dafh.v1.ArchiveService.DeleteArchive",
    "dafh.v1.ArchiveService.DeleteCases",
    "dafh.v1.ArchiveService.GetArchive",
    "dafh.v1.ArchiveService.GetCase",
    "dafh.v1.ArchiveService.IndexCases",
    "dafh.v1.ArchiveService.ListArchives",
    "dafh.v1.ArchiveService.ListCases",
    "dafh.v1.ArchiveService.SwitchArchive",
    "dafh.v1.ModelService.GetModel",
    "dafh.v1.ModelService.ListModels",
    "dafh.v1.RetrievalService.BatchRetrieve",
    "dafh.v1.RetrievalService.Encode",
    "dafh.v1.RetrievalService.Retrieve",
    "dafh.v1.RetrievalService.RetrieveUpload",
)

#: Where a descriptor holds further ones: number and name of the field, as in descriptor.proto.
CHILDREN: dict[type[Message], list[tuple[int, str]]] = {
    descriptor_pb2.FileDescriptorProto: [(4, "message_type"), (5, "enum_type"), (6, "service")],
    descriptor_pb2.DescriptorProto: [
        (2, "field"),
        (8, "oneof_decl"),
        (3, "nested_type"),
        (4, "enum_type"),
    ],
    descriptor_pb2.EnumDescriptorProto: [(2, "value")],
    descriptor_pb2.ServiceDescriptorProto: [(2, "method")],
}

#: An error under "Possible errors": a status code, the reasons that come with it, and when.
ERROR = re.compile(r"^ *\* (?P<code>[A-Z_]+)(?: \((?P<reasons>[A-Z_,\s]+)\))?: \S", re.MULTILINE)


@dataclass(frozen=True)
class Element:
    """A named thing that the contract declares."""

    comment: str
    descriptor: Message


@dataclass(frozen=True)
class Contract:
    """The contract as protoc sees it; each table is keyed by full name."""

    elements: dict[str, Element]
    messages: dict[str, descriptor_pb2.DescriptorProto]
    fields: dict[str, descriptor_pb2.FieldDescriptorProto]
    methods: dict[str, descriptor_pb2.MethodDescriptorProto]

    @property
    def asked(self) -> set[str]:
        """Messages that a caller can send, nested ones included."""
        return self.reachable({m.input_type.removeprefix(".") for m in self.methods.values()})

    @property
    def answered(self) -> set[str]:
        """Messages that a caller can receive, nested ones included."""
        return self.reachable({m.output_type.removeprefix(".") for m in self.methods.values()})

    def reachable(self, waiting: set[str]) -> set[str]:
        found: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name in self.messages and name not in found:
                found.add(name)
                waiting |= {f.type_name.removeprefix(".") for f in self.messages[name].field}
        return found


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    path = tmp_path_factory.mktemp("contract") / "dafh.binpb"
    subprocess.run([sys.executable, GENERATE, "--descriptors", path], check=True)
    found: dict[str, Element] = {}
    for file in descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file:
        if file.package == "dafh.v1":
            found |= declared(file)
    descriptors = {name: element.descriptor for name, element in found.items()}
    return Contract(
        elements=found,
        messages=of_kind(descriptors, descriptor_pb2.DescriptorProto),
        fields=of_kind(descriptors, descriptor_pb2.FieldDescriptorProto),
        methods=of_kind(descriptors, descriptor_pb2.MethodDescriptorProto),
    )


Kind = TypeVar("Kind", bound=Message)


def of_kind(found: dict[str, Message], kind: type[Kind]) -> dict[str, Kind]:
    return {name: one for name, one in found.items() if isinstance(one, kind)}


def declared(file: descriptor_pb2.FileDescriptorProto) -> dict[str, Element]:
    comments = {
        tuple(location.path): location.leading_comments.strip()
        for location in file.source_code_info.location
    }
    return {
        name: Element(comments.get(path, ""), descriptor)
        for name, path, descriptor in walk(file, file.package, ())
    }


def walk(
    parent: Message, name: str, path: tuple[int, ...]
) -> Iterator[tuple[str, tuple[int, ...], Message]]:
    for number, attribute in CHILDREN.get(type(parent), []):
        for position, child in enumerate(getattr(parent, attribute)):
            # protoc makes up a oneof, with an underscore, for each `optional`.
            if not child.name.startswith("_"):
                place = (*path, number, position)
                yield f"{name}.{child.name}", place, child
                yield from walk(child, f"{name}.{child.name}", place)


def behaviours(field: descriptor_pb2.FieldDescriptorProto) -> set[int]:
    # The types of googleapis-common-protos do not tell what an option extends.
    return set(cast("Any", field.options).Extensions[field_behavior_pb2.field_behavior])


def test_stubs_are_those_of_the_contract() -> None:
    check = subprocess.run(
        [sys.executable, GENERATE, "--check"], capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stderr


def test_no_method_is_missing(contract: Contract) -> None:
    assert set(contract.methods) == set(METHODS)


def test_every_element_is_explained(contract: Contract) -> None:
    assert len(contract.elements) > 200
    assert [name for name, element in contract.elements.items() if not element.comment] == []


def test_every_field_says_who_sets_it(contract: Contract) -> None:
    silent = [name for name, field in contract.fields.items() if not behaviours(field)]
    assert silent == []


def test_what_is_only_answered_is_marked_as_output(contract: Contract) -> None:
    unmarked = [
        f"{name}.{field.name}"
        for name in contract.answered - contract.asked
        for field in contract.messages[name].field
        if not {field_behavior_pb2.OUTPUT_ONLY, field_behavior_pb2.IDENTIFIER} & behaviours(field)
    ]
    assert unmarked == []


@pytest.mark.parametrize("method", METHODS)
def test_every_method_tells_its_errors(contract: Contract, method: str) -> None:
    comment = contract.elements[method].comment
    assert "Possible errors" in comment
    require_errors(comment)


def test_services_tell_the_errors_of_all_methods(contract: Contract) -> None:
    services = {method.rpartition(".")[0] for method in METHODS}
    assert len(services) == 3
    for service in services:
        comment = contract.elements[service].comment
        require_errors(comment)
        assert {"UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED"} <= {
            error["code"] for error in ERROR.finditer(comment)
        }


def require_errors(comment: str) -> None:
    told = list(ERROR.finditer(comment))
    assert told
    assert len(told) == len(re.findall(r"^ *\*", comment, re.MULTILINE))
    for error in told:
        assert error["code"] in grpc.StatusCode.__members__
        assert error["reasons"], error[0]
        assert set(re.findall("[A-Z_]+", error["reasons"])) <= set(Reason)


def test_every_reason_of_a_status_is_told_and_no_other(contract: Contract) -> None:
    comments = [element.comment for element in contract.elements.values()]
    told = {
        (error["code"], reason)
        for comment in comments
        for error in ERROR.finditer(comment)
        for reason in re.findall("[A-Z_]+", error["reasons"] or "")
    }
    assert {reason for _, reason in told} == set(REASONS)
    codes = {kind.code.name for kind in CODES.values()}
    assert {code for code, _ in told} == codes - {"UNIMPLEMENTED"}


def test_lists_come_in_pages(contract: Contract) -> None:
    """AIP-158."""
    lists = [one for one in contract.methods.values() if one.name.startswith("List")]
    assert len(lists) == 3
    for method in lists:
        request = contract.messages[method.input_type.removeprefix(".")]
        response = contract.messages[method.output_type.removeprefix(".")]
        assert {"page_size", "page_token"} <= {field.name for field in request.field}
        assert response.field[0].label == descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
        assert response.field[1].name == "next_page_token"


@pytest.mark.parametrize(
    ("message", "pattern"),
    [
        ("Archive", "archives/{archive}"),
        ("Case", "archives/{archive}/cases/{case}"),
        ("Model", "models/{model}"),
    ],
)
def test_resources_have_their_names(contract: Contract, message: str, pattern: str) -> None:
    # The types of googleapis-common-protos do not tell what an option extends.
    options = cast("Any", contract.messages[f"dafh.v1.{message}"].options)
    resource = options.Extensions[resource_pb2.resource]
    assert list(resource.pattern) == [pattern]
    assert resource.type == f"dafh/{message}"


def test_no_answer_has_a_place_for_a_patient(contract: Contract) -> None:
    personal = re.compile("patient|person|birth|accession|physician|institution")
    places = [
        f"{name}.{field.name}"
        for name in contract.answered
        for field in contract.messages[name].field
        if personal.search(field.name)
    ]
    assert places == []


def test_what_names_a_patient_is_redacted_in_debug_texts(contract: Contract) -> None:
    redacted = {name for name, field in contract.fields.items() if field.options.debug_redact}
    images = {name for name in contract.fields if re.search(r"\.(dicom|picture|data)$", name)}
    patient = {name for name in contract.fields if name.startswith("dafh.v1.Patient.")}
    assert len(images) == 7
    assert len(patient) == 2
    assert images | patient <= redacted


def breaks(folder: Path, change: Callable[[descriptor_pb2.FileDescriptorSet], object]) -> bool:
    """Say whether buf finds that a changed contract breaks the baseline."""
    baseline = GENERATE.parent / "baseline.binpb"
    files = descriptor_pb2.FileDescriptorSet.FromString(baseline.read_bytes())
    change(files)
    (folder / "changed.binpb").write_bytes(files.SerializeToString())
    command = [
        str(Path(sys.executable).with_name("buf")), "breaking", str(folder / "changed.binpb"),
        "--against", str(baseline), "--config", str(GENERATE.parent / "buf.yaml"),
        "--exclude-imports",
    ]  # fmt: skip
    return subprocess.run(command, check=False, capture_output=True).returncode != 0


def message(files: descriptor_pb2.FileDescriptorSet, name: str) -> descriptor_pb2.DescriptorProto:
    return next(one for file in files.file for one in file.message_type if one.name == name)


def test_what_breaks_a_client_is_found(tmp_path: Path) -> None:
    def rename(files: descriptor_pb2.FileDescriptorSet) -> None:
        message(files, "Hit").field[0].name = "renamed"

    def remove(files: descriptor_pb2.FileDescriptorSet) -> None:
        del message(files, "Hit").field[1]

    def retype(files: descriptor_pb2.FileDescriptorSet) -> None:
        message(files, "Hit").field[1].type = descriptor_pb2.FieldDescriptorProto.TYPE_STRING

    def add(files: descriptor_pb2.FileDescriptorSet) -> None:
        message(files, "Hit").field.add(
            name="more", number=99, type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
            label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL, json_name="more",
        )  # fmt: skip

    for change in (rename, remove, retype):
        assert breaks(tmp_path, change), change.__name__
    assert not breaks(tmp_path, add)
    assert not breaks(tmp_path, str)
