"""Load: equal questions are worked on once, what is full says so, and memory is bounded."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from dafh.client import Client, Target, question
from dafh.client.errors import error_of
from dafh.deadline import Deadline
from dafh.encoding.triton import MAX_BATCH, TritonEncoder
from dafh.errors import DafhError, Reason
from dafh.imaging.phantom import phantoms
from dafh.security.accounts import Account, AccountFile, new_token, token_hash
from dafh.security.identity import Role
from dafh.v1 import image_pb2, retrieval_service_pb2
from dafh.v1.retrieval_service_pb2_grpc import RetrievalServiceStub
from dafh_gateway.line import SHORT
from dafh_gateway.server import Gateway
from tests.chaos.conftest import Site
from tests.chaos.process import GatewayProcess
from tests.gateway.filled import fill

pytestmark = pytest.mark.stack
MEBIBYTE = 1 << 20


def value(gateway: Gateway, name: str) -> float:
    """Return the sum of a metric over its labels."""
    lines = gateway.observer.metrics.text().decode().splitlines()
    found = [line for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
    return sum(float(line.rpartition(" ")[2]) for line in found)


def test_fifty_equal_questions_are_one_inference(site: Site) -> None:
    gateway = site.gateway()
    client = site.client(gateway)
    fill(client, "default", 6, 87)
    data = next(iter(phantoms(1, 86))).data
    name = 'dafh_stage_seconds_count{stage="inference"}'
    before = value(gateway, name)
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: client.retrieve(dicom=data), range(40)))
        more = [client.retrieve(dicom=data) for _ in range(10)]
    hits = {answer.query.code for answer in (*answers, *more)}
    assert len(hits) == 1
    assert value(gateway, name) - before == 1
    assert value(gateway, 'dafh_encodings_total{shared="true"}') == 49


def upload_of(size: int) -> Iterator[retrieval_service_pb2.RetrieveUploadRequest]:
    """Yield an upload that is no image; only its length matters."""
    chunk = bytes(MEBIBYTE)
    digest = hashlib.sha256()
    for _ in range(0, size, MEBIBYTE):
        digest.update(chunk)
    header = retrieval_service_pb2.UploadHeader(
        request=question({}), format=image_pb2.IMAGE_FORMAT_DICOM, size_bytes=size,
        sha256=digest.digest(),
    )  # fmt: skip
    yield retrieval_service_pb2.RetrieveUploadRequest(header=header)
    for offset in range(0, size, MEBIBYTE):
        part = retrieval_service_pb2.UploadChunk(offset=offset, data=chunk)
        yield retrieval_service_pb2.RetrieveUploadRequest(chunk=part)


def test_parallel_uploads_stay_inside_the_memory_budget(site: Site) -> None:
    budget = 256 * MEBIBYTE
    settings = site.values(memory_budget=budget, memory_patience=60)
    outcomes: Counter[str] = Counter()
    with GatewayProcess(site.folder / "gateway.log", **settings) as gateway:
        target = Target(gateway.address, retry=False)
        before = gateway.status("VmRSS")

        def send(_: int) -> None:
            with Client(target, timeout=100) as client:
                try:
                    client.retrieval.RetrieveUpload(upload_of(60 * MEBIBYTE), timeout=90)
                except grpc.RpcError as error:
                    outcomes[error_of(error).reason] += 1

        with ThreadPoolExecutor(64) as pool:
            list(pool.map(send, range(64)))
        peak = gateway.status("VmHWM")
    assert set(outcomes) <= {Reason.NOT_AN_IMAGE, Reason.OVERLOADED, Reason.ARCHIVE_NOT_FOUND}
    assert sum(outcomes.values()) == 64
    # What 64 streams send ahead lies in gRPC's windows, beside the budget: 64 x 60 MiB are 3840.
    assert (peak - before) / MEBIBYTE < 256 + 300


def test_what_is_full_says_when_to_come_back(site: Site) -> None:
    gateway = site.gateway(max_calls=4, max_calls_per_tenant=4, max_queries=1, max_waiting=2)
    client = site.client(gateway)
    fill(client, "default", 3, 87)
    files = [one.data for one in phantoms(30, 85)]
    outcomes: Counter[str] = Counter()

    def ask(data: bytes) -> None:
        try:
            client.retrieve(dicom=data)
            outcomes["answered"] += 1
        except DafhError as error:
            outcomes[error.reason] += 1

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, files))
    assert set(outcomes) == {"answered", Reason.OVERLOADED}
    assert outcomes["answered"] >= 3
    # A client that repeats gets through.
    patient = site.running.enter_context(
        Client(Target(f"127.0.0.1:{gateway.port}", retry=True), timeout=60)
    )
    assert patient.retrieve(dicom=files[0], include_same_patient=True).hits


def test_callers_without_pause_are_not_refused_while_they_are_few(site: Site) -> None:
    gateway = site.gateway(max_queries=2, patience=0.1)
    client = site.client(gateway)
    fill(client, "default", 3, 87)
    files = [one.data for one in phantoms(60, 83)]

    with ThreadPoolExecutor(2 + 2 * SHORT) as pool:
        answers = list(pool.map(lambda data: client.retrieve(dicom=data), files))
    assert len(answers) == len(files)


def test_a_full_queue_of_triton_is_said_to_be_full(site: Site) -> None:
    encoder = TritonEncoder(site.triton.address, 1)
    images = np.zeros((MAX_BATCH, 1, encoder.model.side, encoder.model.side), np.uint8)
    outcomes: Counter[str] = Counter()

    def ask(_: int) -> None:
        try:
            encoder.encode(images, Deadline.after(60))
            outcomes["answered"] += 1
        except DafhError as error:
            outcomes[error.reason] += 1

    site.triton.load(1, longest_queue=1)
    try:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(ask, range(32)))
    finally:
        site.triton.load(1, 2)
        encoder.close()
    assert set(outcomes) == {"answered", Reason.OVERLOADED}


def test_a_stream_of_images_is_slowed_and_not_refused(site: Site) -> None:
    gateway = site.gateway(max_queries=1, max_waiting=4, patience=0.01, decode_workers=1)
    client = site.client(gateway)
    filled = fill(client, "default", 40, 84)
    assert len(filled) == 40


def accounts(folder: Path, *tenants: str) -> tuple[Path, dict[str, str]]:
    """Write a reader and indexer of each tenant into a file; return it and their tokens."""
    tokens = {tenant: new_token() for tenant in tenants}
    made = tuple(
        Account(
            subject=tenant, tenant=tenant, roles=frozenset(Role), token_sha256=token_hash(token)
        )
        for tenant, token in tokens.items()
    )
    file = folder / "accounts.json"
    file.write_text(AccountFile(accounts=made).model_dump_json())
    file.chmod(0o600)
    return file, tokens


def encode(stub: RetrievalServiceStub, data: bytes, token: str) -> None:
    request = retrieval_service_pb2.EncodeRequest(dicom=data)
    stub.Encode(request, timeout=20, metadata=(("authorization", f"Bearer {token}"),))


def test_a_tenant_that_floods_keeps_nobody_else_out(site: Site, tmp_path: Path) -> None:
    file, tokens = accounts(tmp_path, "flood", "guest")
    gateway = site.gateway(accounts=file, max_calls=16, max_calls_per_tenant=12)
    stub = site.client(gateway).retrieval
    outcomes: dict[str, Counter[str]] = {tenant: Counter() for tenant in tokens}
    image = next(iter(phantoms(1, 71))).data
    numbers = itertools.count()
    # A decoder and keys of its own are made for each tenant on its first call.
    for token in tokens.values():
        encode(stub, image, token)
    until = time.monotonic() + 6

    def ask(tenant: str, pause: float) -> None:
        while time.monotonic() < until:
            # The last pixels are another's each time: none is answered from a moment ago.
            data = image[:-4] + next(numbers).to_bytes(4, "little")
            try:
                encode(stub, data, tokens[tenant])
                outcomes[tenant]["answered"] += 1
            except grpc.RpcError as error:
                outcomes[tenant][error_of(error).reason] += 1
            time.sleep(pause)

    with ThreadPoolExecutor(25) as pool:
        work = [pool.submit(ask, "flood", 0.0) for _ in range(24)]
        work.append(pool.submit(ask, "guest", 0.1))
    for one in work:
        one.result()
    flood, guest = outcomes["flood"], outcomes["guest"]
    assert flood[Reason.OVERLOADED] > 10, flood
    assert guest["answered"] >= 5, guest
    assert guest["answered"] >= 0.9 * sum(guest.values()), guest
