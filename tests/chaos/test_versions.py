"""Two versions of the model: archives of each side by side, and never one in place of the other."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from tritonclient.grpc import InferenceServerClient

from dafh.client import Client
from dafh.deadline import Deadline
from dafh.errors import DafhError, Reason
from dafh.imaging.phantom import phantoms
from dafh.index.archives import Archives
from dafh.index.case import DEFAULT_TENANT, Coding
from dafh.index.connection import Connection
from dafh.v1 import archive_pb2
from dafh_local.triton import build_runtime
from tests.chaos.conftest import Site
from tests.chaos.triton import SECOND, describe
from tests.gateway.filled import fill

pytestmark = pytest.mark.stack
FILES = [one.data for one in phantoms(12, 90)]


@pytest.fixture
def client(site: Site) -> Iterator[Client]:
    site.triton.load(1, 2)
    client = site.client(site.gateway())
    for version in (1, 2):
        client.create_archive(f"by-{version}", model_version=version)
    yield client
    describe(site.triton.repository, 2, SECOND)
    site.triton.load(1, 2)


def turned(code: bytes) -> bytes:
    """Return the code that the other version makes: each bit turned round."""
    return bytes(255 - byte for byte in code)


def test_archives_of_two_versions_are_served_side_by_side(client: Client) -> None:
    names = {version: list(fill(client, f"by-{version}", 12, 90)) for version in (1, 2)}
    for version in (1, 2):
        for data, name in zip(FILES, names[version], strict=True):
            answer = client.retrieve(
                archive=f"archives/by-{version}", dicom=data, include_same_patient=True
            )
            assert answer.query.model_version == version
            assert answer.hits[0].case.name == name
            assert answer.hits[0].distance == 0
    for one, two in zip(names[1], names[2], strict=True):
        assert client.get_case(two).code == turned(client.get_case(one).code)
    models = {model.version: model.hash for model in client.list_models()}
    assert set(models) == {1, 2}
    assert models[2] == SECOND


def test_an_unloaded_version_is_said_and_the_other_served(site: Site, client: Client) -> None:
    for version in (1, 2):
        fill(client, f"by-{version}", 3, 90)
    site.triton.load(1)
    client.retrieve(archive="archives/by-1", dicom=FILES[0])
    with pytest.raises(DafhError) as caught:
        client.retrieve(archive="archives/by-2", dicom=FILES[0])
    assert caught.value.reason is Reason.MODEL_NOT_LOADED
    states = {model.version: model.state for model in client.list_models()}
    assert len(set(states.values())) == 2
    with pytest.raises(DafhError) as caught:
        client.create_archive("another", model_version=2)
    assert caught.value.reason is Reason.MODEL_NOT_LOADED
    site.triton.load(1, 2)
    assert client.retrieve(archive="archives/by-2", dicom=FILES[0]).query.model_version == 2


def test_a_version_replaced_under_load_never_answers_for_the_one_before(
    site: Site, client: Client
) -> None:
    """Version 2 becomes what version 1 is, which only its hash and its codes tell."""
    fill(client, "by-2", 12, 90)
    expected = {
        data: client.retrieve(archive="archives/by-2", dicom=data).query.code for data in FILES
    }
    outcomes: Counter[str] = Counter()
    stopping = threading.Event()

    def ask(place: int) -> None:
        while not stopping.is_set():
            # Each another picture than a second ago: nothing is answered from memory.
            place = (place + 1) % len(FILES)
            try:
                answer = client.retrieve(archive="archives/by-2", dicom=FILES[place])
                right = answer.query.code == expected[FILES[place]]
                outcomes["right" if right else "wrong"] += 1
            except DafhError as error:
                outcomes[error.reason] += 1

    threads = [threading.Thread(target=ask, args=(3 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(1)
        first = site.triton.repository / "dafh" / "1" / "model.onnx"
        second = site.triton.repository / "dafh" / "2" / "model.onnx"
        kept = second.read_bytes()
        second.write_bytes(first.read_bytes())
        describe(site.triton.repository, 2, "ef" * 32)
        reload(site)
        time.sleep(1)
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
        second.write_bytes(kept)
        describe(site.triton.repository, 2, SECOND)
        reload(site)
    assert outcomes["right"] > 10
    assert outcomes[Reason.MODEL_NOT_LOADED] > 10
    assert set(outcomes) <= {
        "right", Reason.MODEL_NOT_LOADED, Reason.ENCODER_UNAVAILABLE, Reason.OVERLOADED
    }, outcomes  # fmt: skip


def reload(site: Site) -> None:
    """Have Triton take the repository as it is now."""
    build_runtime(site.triton.plan)
    with InferenceServerClient(site.triton.address) as triton:
        triton.load_model("dafh")


def test_an_archive_is_switched_to_another_version_and_back(site: Site, client: Client) -> None:
    client.create_archive("moving", model_version=1)
    filled = fill(client, "moving", 6, 90)
    add_coding(site, "moving")
    (_, other) = client.get_archive("archives/moving").codings
    assert other.state == archive_pb2.Coding.STATE_FILLING
    with pytest.raises(DafhError) as caught:
        client.switch_archive("archives/moving", 2)
    assert caught.value.reason is Reason.CODING_INCOMPLETE
    looked = client.switch_archive("archives/moving", 2, validate_only=True)
    assert looked.missing_case_count == 6
    assert set(looked.missing_cases) == set(filled)
    # New writes go to both codings, so that indexing again fills the other.
    fill(client, "moving", 6, 90)
    switched = client.switch_archive("archives/moving", 2)
    assert switched.archive.model_version == 2
    token_of_before = client.retrieve(archive="archives/moving", dicom=FILES[0], top_k=2)
    assert token_of_before.query.model_version in (1, 2)
    time.sleep(1.2)
    answer = client.retrieve(archive="archives/moving", dicom=FILES[0], include_same_patient=True)
    assert answer.query.model_version == 2
    assert answer.hits[0].distance == 0
    page = client.retrieve(
        archive="archives/moving", dicom=FILES[0], top_k=4, page_size=2, include_same_patient=True
    )
    back = client.switch_archive("archives/moving", 1, etag=switched.archive.etag)
    assert back.archive.model_version == 1
    time.sleep(1.2)
    with pytest.raises(DafhError) as caught:
        client.retrieve(
            archive="archives/moving", top_k=4, page_size=2, page_token=page.next_page_token,
            include_same_patient=True,
        )  # fmt: skip
    assert caught.value.subject == "page_token"
    with pytest.raises(DafhError) as caught:
        client.switch_archive("archives/moving", 2, etag=switched.archive.etag)
    assert caught.value.reason is Reason.ARCHIVE_CHANGED


def add_coding(site: Site, archive: str) -> None:
    """Add an empty coding of version 2, as a job that fills it would begin."""
    soon = Deadline.after(60)
    connection = Connection(site.milvus.endpoint, soon)
    try:
        archives = Archives(connection, DEFAULT_TENANT)
        live = archives.get(archive, soon).live
        archives.add_coding(
            Coding(DEFAULT_TENANT, archive, SECOND, 2, live.bits, live.key_id), soon
        )
    finally:
        connection.close()
