"""Every role, method and tenant: who may, who may not, and what one tenant sees of another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from dafh.client.errors import error_of
from dafh.errors import Reason
from dafh.imaging.phantom import phantoms
from dafh.security.accounts import Account, AccountFile, new_token, token_hash
from dafh.security.identity import Role
from dafh.stack import Stack
from dafh.v1 import (
    archive_pb2,
    archive_service_pb2,
    image_pb2,
    model_service_pb2,
    retrieval_service_pb2,
)
from dafh_gateway.permissions import PERMISSIONS
from dafh_gateway.server import DESCRIPTORS, Gateway
from tests.gateway.conftest import beside
from tests.gateway.filled import PREFERRED

pytestmark = pytest.mark.stack
METHODS = {method.full_name: method for one in DESCRIPTORS for method in one.methods}
IMAGE = next(iter(phantoms(1, 94))).data
ARCHIVE = "archives/mine"
CASE = f"{ARCHIVE}/cases/{'0' * 32}"
Tokens = dict[tuple[str, str], str]


class Door:
    """A gateway that asks who calls."""

    def __init__(self, address: str, tokens: Tokens) -> None:
        self.tokens = tokens
        self.channel = grpc.insecure_channel(address)

    def call(self, method: str, messages: list[bytes], token: str | None) -> list[Message]:
        """Call a method with messages as they are on the wire."""
        descriptor = METHODS[method]
        call: grpc.StreamStreamMultiCallable[bytes, Message] = self.channel.stream_stream(
            f"/{descriptor.containing_service.full_name}/{descriptor.name}",
            request_serializer=None,
            response_deserializer=GetMessageClass(descriptor.output_type).FromString,
        )
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        return list(call(iter(messages), metadata=metadata, timeout=60))

    def reason(self, method: str, messages: list[bytes], token: str | None) -> Reason | None:
        """Return the reason for which a call failed, if it did."""
        try:
            self.call(method, messages, token)
        except grpc.RpcError as error:
            return error_of(error).reason
        return None


@pytest.fixture(scope="module")
def door(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    file: Path = tmp_path_factory.mktemp("accounts") / "accounts.json"
    tokens: Tokens = {(tenant, role): new_token() for tenant in ("north", "south") for role in Role}
    tokens["north", "nothing"] = new_token()
    accounts = tuple(
        Account(
            subject=f"{tenant}-{role}", tenant=tenant, token_sha256=token_hash(token),
            roles=frozenset() if role == "nothing" else frozenset({Role(role)}),
        )
        for (tenant, role), token in tokens.items()
    )  # fmt: skip
    file.write_text(AccountFile(accounts=accounts).model_dump_json())
    file.chmod(0o600)
    gateway = Gateway(beside(stack, accounts=file))
    try:
        yield Door(f"127.0.0.1:{gateway.port}", tokens)
    finally:
        gateway.stop()


def wire(*messages: Message) -> list[bytes]:
    return [message.SerializeToString() for message in messages]


def valid() -> dict[str, list[bytes]]:
    """Return what a caller who may would send, method by method."""
    query = retrieval_service_pb2.RetrieveRequest(
        archive=ARCHIVE, query=retrieval_service_pb2.Query(dicom=IMAGE)
    )
    names = archive_service_pb2.CaseNames(names=[CASE])
    requests: dict[str, list[bytes]] = {
        "RetrievalService.Retrieve": wire(query),
        "RetrievalService.RetrieveUpload": wire(
            retrieval_service_pb2.RetrieveUploadRequest(
                header=retrieval_service_pb2.UploadHeader(
                    request=retrieval_service_pb2.RetrieveRequest(archive=ARCHIVE),
                    format=image_pb2.IMAGE_FORMAT_DICOM, size_bytes=1, sha256=bytes(32),
                )
            )
        ),
        "RetrievalService.BatchRetrieve": wire(
            retrieval_service_pb2.BatchRetrieveRequest(requests=[query])
        ),
        "RetrievalService.Encode": wire(retrieval_service_pb2.EncodeRequest(dicom=IMAGE)),
        "ArchiveService.IndexCases": wire(
            archive_service_pb2.IndexCasesRequest(parent=ARCHIVE, dicom=IMAGE)
        ),
        "ArchiveService.GetCase": wire(archive_service_pb2.GetCaseRequest(name=CASE)),
        "ArchiveService.ListCases": wire(archive_service_pb2.ListCasesRequest(parent=ARCHIVE)),
        "ArchiveService.DeleteCases": wire(
            archive_service_pb2.DeleteCasesRequest(parent=ARCHIVE, cases=names)
        ),
        "ArchiveService.CreateArchive": wire(
            archive_service_pb2.CreateArchiveRequest(
                archive_id="mine", archive=archive_pb2.Archive(bits=64)
            )
        ),
        "ArchiveService.GetArchive": wire(archive_service_pb2.GetArchiveRequest(name=ARCHIVE)),
        "ArchiveService.ListArchives": wire(archive_service_pb2.ListArchivesRequest()),
        "ArchiveService.DeleteArchive": wire(
            archive_service_pb2.DeleteArchiveRequest(name="archives/never-there")
        ),
        "ArchiveService.SwitchArchive": wire(
            archive_service_pb2.SwitchArchiveRequest(name=ARCHIVE, model_version=PREFERRED)
        ),
        "ModelService.GetModel": wire(model_service_pb2.GetModelRequest(name="models/1")),
        "ModelService.ListModels": wire(model_service_pb2.ListModelsRequest()),
    }  # fmt: skip
    return {f"dafh.v1.{name}": messages for name, messages in requests.items()}


VALID = valid()
REFUSED = {Reason.UNAUTHENTICATED, Reason.PERMISSION_DENIED}


def test_the_table_knows_every_method() -> None:
    assert set(PERMISSIONS) == set(METHODS) == set(VALID)
    assert all(Role.ADMIN in roles for roles in PERMISSIONS.values())


@pytest.mark.parametrize("method", METHODS)
def test_each_role_may_what_the_table_says(door: Door, method: str) -> None:
    for role in Role:
        reason = door.reason(method, VALID[method], door.tokens["north", role])
        assert (reason not in REFUSED) == (role in PERMISSIONS[method]), (role, reason)
    nobody = door.tokens["north", "nothing"]
    assert door.reason(method, VALID[method], nobody) is Reason.PERMISSION_DENIED
    for token in (None, "", "wrong", "a.b.c"):
        assert door.reason(method, VALID[method], token) is Reason.UNAUTHENTICATED


@pytest.mark.parametrize("method", METHODS)
def test_who_may_not_call_is_told_so_before_anything_is_read(door: Door, method: str) -> None:
    """What comes after the door, a message of nonsense, is not even parsed."""
    nonsense = [b"\xff" * 64]
    assert door.reason(method, nonsense, None) is Reason.UNAUTHENTICATED
    nobody = door.tokens["north", "nothing"]
    assert door.reason(method, nonsense, nobody) is Reason.PERMISSION_DENIED


def call(door: Door, tenant: str, method: str, *requests: Any) -> list[Any]:  # noqa: ANN401 - any message
    return door.call(f"dafh.v1.{method}", wire(*requests), door.tokens[tenant, "admin"])


def test_a_tenant_sees_nothing_of_another(door: Door) -> None:
    call(door, "north", "ArchiveService.CreateArchive",
         archive_service_pb2.CreateArchiveRequest(archive_id="mine"))  # fmt: skip
    (result,) = call(
        door, "north", "ArchiveService.IndexCases",
        archive_service_pb2.IndexCasesRequest(parent=ARCHIVE, dicom=IMAGE),
    )  # fmt: skip
    name = result.indexed.cases[0].name
    token = door.tokens["south", "admin"]
    (listed,) = call(door, "south", "ArchiveService.ListArchives",
                     archive_service_pb2.ListArchivesRequest())  # fmt: skip
    assert "archives/mine" not in [one.name for one in listed.archives]
    about_the_archive = {
        method: messages
        for method, messages in VALID.items()
        if ARCHIVE.encode() in b"".join(messages)
        and "Batch" not in method
        and "Upload" not in method
    }
    assert len(about_the_archive) == 7
    del about_the_archive["dafh.v1.ArchiveService.GetCase"]
    for method, messages in about_the_archive.items():
        assert door.reason(method, messages, token) is Reason.ARCHIVE_NOT_FOUND, method
    for method, request in {
        "ArchiveService.GetCase": archive_service_pb2.GetCaseRequest(name=name),
        "ArchiveService.DeleteArchive": archive_service_pb2.DeleteArchiveRequest(
            name=ARCHIVE, force=True
        ),
        "RetrievalService.Retrieve": retrieval_service_pb2.RetrieveRequest(
            archive=ARCHIVE, query=retrieval_service_pb2.Query(case=name)
        ),
    }.items():
        reason = door.reason(f"dafh.v1.{method}", wire(request), token)
        assert reason is Reason.ARCHIVE_NOT_FOUND
    (case,) = call(door, "north", "ArchiveService.GetCase",
                   archive_service_pb2.GetCaseRequest(name=name))  # fmt: skip
    assert case.name == name


def test_archives_of_one_name_are_each_tenants_own(door: Door) -> None:
    create = archive_service_pb2.CreateArchiveRequest(archive_id="both")
    index = archive_service_pb2.IndexCasesRequest(parent="archives/both", dicom=IMAGE)
    names = []
    for tenant in ("north", "south"):
        call(door, tenant, "ArchiveService.CreateArchive", create)
        (result,) = call(door, tenant, "ArchiveService.IndexCases", index)
        names.append(result.indexed.cases[0].name)
    assert names[0] != names[1]
    erase = archive_service_pb2.DeleteArchiveRequest(name="archives/both", force=True)
    call(door, "south", "ArchiveService.DeleteArchive", erase)
    found = archive_service_pb2.GetCaseRequest(name=names[0])
    assert call(door, "north", "ArchiveService.GetCase", found)


def test_a_page_of_one_tenant_is_refused_to_another(door: Door) -> None:
    for tenant in ("north", "south"):
        for name in ("paged-a", "paged-b"):
            call(door, tenant, "ArchiveService.CreateArchive",
                 archive_service_pb2.CreateArchiveRequest(archive_id=name))  # fmt: skip
    request = archive_service_pb2.ListArchivesRequest(page_size=1)
    (page,) = call(door, "north", "ArchiveService.ListArchives", request)
    request.page_token = page.next_page_token
    assert call(door, "north", "ArchiveService.ListArchives", request)
    token = door.tokens["south", "admin"]
    reason = door.reason("dafh.v1.ArchiveService.ListArchives", wire(request), token)
    assert reason is Reason.ARGUMENT_INVALID


@pytest.fixture(autouse=True, scope="module")
def _left_as_found(door: Door) -> Iterator[None]:
    yield
    for tenant in ("north", "south"):
        for name in ("mine", "both", "paged-a", "paged-b"):
            with contextlib.suppress(grpc.RpcError):
                request = archive_service_pb2.DeleteArchiveRequest(
                    name=f"archives/{name}", force=True
                )
                call(door, tenant, "ArchiveService.DeleteArchive", request)
