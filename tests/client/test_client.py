"""The Python client, sync and async, against the real gateway."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Self

import grpc
import numpy as np
import pytest

from dafh.client import AsyncClient, Client, Target, question, to_pandas
from dafh.client.channel import MAX_MESSAGE
from dafh.client.requests import upload
from dafh.errors import DafhError, InvalidInput, NotFound, Overloaded, Reason, Unavailable
from dafh.imaging.phantom import Phantom, phantoms
from dafh.settings import CHECKOUT
from dafh.stack import Stack
from dafh.v1 import archive_service_pb2, retrieval_service_pb2
from dafh_gateway.server import Gateway
from dafh_gateway.statuses import PUSHBACK, RETRY_AFTER
from tests.gateway.conftest import beside
from tests.gateway.filled import fill
from tests.imaging.instances import write_instance

pytestmark = pytest.mark.stack
ARCHIVE = "archives/client"
QUERY = next(iter(phantoms(1, 82))).data
PUSHBACK_S = 0.7


class Refusing:
    """Serves a method that refuses so many calls before it answers; no real gateway does on demand.

    Parameters
    ----------
    pushback
        Seconds after which callers are told to come back; ``None`` says nothing of it.
    """

    def __init__(
        self, service: str, method: str, refusals: int, pushback: float | None = None
    ) -> None:
        #: When it was called.
        self.calls: list[float] = []
        self._refusals, self._pushback = refusals, pushback
        self._server = grpc.server(
            ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", MAX_MESSAGE)]
        )
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
            self._answer
        )
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(service, {method: handler})]
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def _answer(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        self.calls.append(time.monotonic())
        if len(self.calls) <= self._refusals:
            if self._pushback is not None:
                context.set_trailing_metadata(((PUSHBACK, f"{1000 * self._pushback:.0f}"),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        return b""

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.gateway.address, timeout=60) as opened:
        opened.create_archive("client")
        yield opened


@pytest.fixture(scope="module")
def filled(client: Client) -> dict[str, Phantom]:
    return fill(client, "client", 12, 81)


def test_an_answer_becomes_a_table(client: Client, filled: dict[str, Phantom]) -> None:
    answer = client.retrieve(archive=ARCHIVE, dicom=QUERY, include_same_patient=True)
    table = to_pandas(answer)
    assert list(table["case"]) == [hit.case.name for hit in answer.hits]
    assert list(table["distance"]) == [hit.distance for hit in answer.hits]
    assert table["probability"].notna().tolist() == [
        hit.HasField("probability") for hit in answer.hits
    ]
    empty = to_pandas(retrieval_service_pb2.RetrieveResponse())
    assert list(empty.columns) == list(table.columns)
    assert (empty.dtypes == table.dtypes).all()


def test_the_async_client_does_what_the_sync_one_does(
    stack: Stack, client: Client, filled: dict[str, Phantom]
) -> None:
    large = write_instance(np.arange(3000 * 3000, dtype=np.uint16).reshape(3000, 3000))

    async def all_of_it() -> None:
        async with AsyncClient(stack.gateway.address, timeout=60) as other:
            answer = await other.retrieve(archive=ARCHIVE, dicom=QUERY)
            assert answer.hits == client.retrieve(archive=ARCHIVE, dicom=QUERY).hits
            request = question({"archive": ARCHIVE, "top_k": 9, "page_size": 4}, dicom=QUERY)
            pages = [page async for page in other.retrieve_pages(request)]
            expected = [list(page.hits) for page in client.retrieve_pages(request)]
            assert [list(page.hits) for page in pages] == expected
            assert len(expected) > 1
            assert (await other.retrieve(archive=ARCHIVE, dicom=large, top_k=3)).hits
            assert (await other.encode(dicom=QUERY)).hashes
            results = await other.retrieve_batch([request, request])
            assert results[0].response.hits == pages[0].hits
            names = [case.name async for case in other.list_cases(ARCHIVE, page_size=5)]
            assert names == sorted(filled)
            assert (await other.get_case(names[0])).name == names[0]
            images = [archive_service_pb2.IndexCasesRequest(parent=ARCHIVE, dicom=QUERY)]
            (result,) = [result async for result in other.index(images)]
            erase = archive_service_pb2.DeleteCasesRequest(parent=ARCHIVE)
            erase.cases.names.append(result.indexed.cases[0].name)
            assert await other.delete_cases(erase) == 1
            archives = [archive.name async for archive in other.list_archives()]
            assert ARCHIVE in archives
            assert (await other.get_archive(ARCHIVE)).name == ARCHIVE
            for model in await other.list_models():
                assert model == await other.get_model(model.name)
            with pytest.raises(InvalidInput) as caught:
                await other.encode(dicom=b"nonsense")
            assert caught.value.reason is Reason.NOT_AN_IMAGE
            with pytest.raises(NotFound):
                await other.delete_archive("archives/never-made")
            calls = (other.retrieve(archive=ARCHIVE, dicom=one.data) for one in phantoms(9, 80))
            assert all(answer.query.bits == 64 for answer in await asyncio.gather(*calls))

    asyncio.run(all_of_it())


def test_calls_are_repeated_while_the_gateway_is_away() -> None:
    with Refusing("dafh.v1.ModelService", "ListModels", 2) as server:
        with Client(server.address, timeout=20) as patient:
            assert list(patient.list_models()) == []
        assert len(server.calls) == 3
        server.calls.clear()
        target = Target(server.address, retry=False)
        with Client(target, timeout=20) as hasty, pytest.raises(Unavailable):
            hasty.list_models()
        assert len(server.calls) == 1


@pytest.mark.parametrize("size", [1000, 600_000, 14 << 20])
@pytest.mark.parametrize("asyncio_too", [False, True], ids=["sync", "asyncio"])
def test_an_image_is_sent_again_when_the_gateway_said(size: int, asyncio_too: bool) -> None:
    with Refusing("dafh.v1.RetrievalService", "Retrieve", 1, pushback=PUSHBACK_S) as server:
        ask_of(server.address, bytes(size), asyncio_too=asyncio_too)
    first, second = server.calls
    # By the backoff alone it would be 0.24 s at most.
    assert PUSHBACK_S <= second - first < PUSHBACK_S + 5


def ask_of(address: str, image: bytes, *, asyncio_too: bool) -> None:
    async def ask() -> None:
        async with AsyncClient(address, timeout=30) as client:
            await client.retrieve(dicom=image)

    if asyncio_too:
        asyncio.run(ask())
    else:
        with Client(address, timeout=30) as client:
            client.retrieve(dicom=image)


def is_full(client: Client) -> bool:
    time.sleep(0.2)
    try:
        client.encode(dicom=QUERY)
    except Overloaded:
        return True
    return False


def test_a_full_gateway_is_asked_again_when_it_said(stack: Stack, client: Client) -> None:
    """With an image of more than gRPC keeps of a call where it is not told to."""
    large = write_instance(np.arange(560 * 560, dtype=np.uint16).reshape(560, 560))
    assert len(large) > 600_000
    leave = threading.Event()

    def unfinished() -> Iterator[retrieval_service_pb2.RetrieveUploadRequest]:
        yield next(upload(question({}, dicom=large)))
        leave.wait(30)

    gateway = Gateway(beside(stack, max_calls=1, max_calls_per_tenant=1))
    target = Target(f"127.0.0.1:{gateway.port}")
    try:
        with Client(target, timeout=30) as patient, Client(replace(target, retry=False)) as hasty:
            held = patient.retrieval.RetrieveUpload.future(unfinished(), timeout=30)
            assert any(is_full(hasty) for _ in range(20))
            threading.Timer(0.3, held.cancel).start()
            began = time.monotonic()
            assert patient.encode(dicom=large).hashes
            assert time.monotonic() - began >= RETRY_AFTER
    finally:
        leave.set()
        gateway.stop()


def test_a_gateway_that_is_not_there_is_said_so() -> None:
    target = Target("127.0.0.1:1", retry=False)
    with Client(target, timeout=5) as lost, pytest.raises(DafhError) as caught:
        lost.list_models()
    assert caught.value.reason is Reason.GATEWAY_UNAVAILABLE


def test_the_twenty_lines_work_as_they_stand(
    stack: Stack, client: Client, filled: dict[str, Phantom], tmp_path: Path
) -> None:
    fill(client, "default", 20, 79)
    text = (CHECKOUT / "docs" / "integrate.md").read_text()
    (script,) = re.findall(
        r"## Twenty lines\n\n<!--[^\n]*-->\n```python\n(.*?)```", text, re.DOTALL
    )
    assert script.count("\n") <= 20
    (tmp_path / "ask.py").write_text(script)
    (tmp_path / "slice.dcm").write_bytes(QUERY)
    done = subprocess.run(
        [sys.executable, "ask.py", stack.gateway.address, "slice.dcm"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "archives/default/cases/" in done.stdout
    (tmp_path / "slice.dcm").write_bytes(b"nonsense")
    done = subprocess.run(
        [sys.executable, "ask.py", stack.gateway.address, "slice.dcm"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("NOT_AN_IMAGE: ")
