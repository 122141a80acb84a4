"""The catalogue keeps archives whole: whoever dies on the way, whoever else changes them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count

import pytest

from dafh.deadline import Deadline
from dafh.errors import (
    Conflict,
    DafhError,
    FailedPrecondition,
    Internal,
    InvalidInput,
    NotFound,
    Outdated,
    Reason,
)
from dafh.index import storage
from dafh.index.archive import Archive
from dafh.index.archives import Archives
from dafh.index.capabilities import _KNOWN, capabilities
from dafh.index.case import Case, Coding, CodingKey
from dafh.index.collection import archive_prefix, collection_name
from dafh.index.connection import Connection
from dafh.index.ledger import Ledger, Note
from dafh.index.milvus import MilvusIndex
from dafh.index.record import subject
from tests.index.models import Died, dying_after, second, soon
from tests.index.servers import LiteServer, Server, StandaloneServer

pytestmark = pytest.mark.stack

NewCoding = Callable[..., Coding]
NewCase = Callable[..., Case]


@pytest.fixture
def archives(connection: Connection) -> Archives:
    return Archives(connection, "default")


def reason(call: Callable[[], object], kind: type[DafhError]) -> Reason:
    with pytest.raises(kind) as refusal:
        call()
    return refusal.value.reason


def keys(archive: Archive) -> list[CodingKey]:
    return [one.coding.key for one in archive.codings]


def test_an_archive_lives_from_creation_to_deletion(
    archives: Archives, connection: Connection, new_coding: NewCoding, new_case: NewCase
) -> None:
    one = new_coding()
    other = second(one)
    made = archives.create(one, soon())
    assert (made.name, made.tenant, made.live) == (one.archive, one.tenant, one)
    assert made.created == made.codings[0].created > 0
    # Once more is the same; otherwise coded is another.
    assert archives.create(one, soon()) == archives.get(one.archive, soon()) == made
    for changed in (other, replace(one, bits=32), replace(one, key_id="other")):
        exists = reason(lambda: archives.create(changed, soon()), Conflict)  # noqa: B023 - at once
        assert exists is Reason.ARCHIVE_EXISTS

    # Every change changes the etag, and whoever holds an old one is told.
    seen = {made.etag}
    both = archives.add_coding(other, soon(), etag=made.etag)
    assert keys(both) == [one.key, other.key]
    assert archives.add_coding(other, soon()) == both
    there = archives.switch(one.archive, other.key, soon(), etag=both.etag).archive
    assert keys(there) == [other.key, one.key]
    back = archives.switch(one.archive, one.key, soon()).archive
    assert keys(back) == [one.key, other.key]
    seen |= {both.etag, there.etag, back.etag}
    assert len(seen) == 4
    name = one.archive
    for outdated in seen - {back.etag}:
        for change in (
            partial(archives.add_coding, other, soon()),
            partial(archives.drop_coding, name, other.key, soon()),
            partial(archives.switch, name, other.key, soon()),
            partial(archives.delete, name, soon(), force=True),
        ):
            refused = reason(partial(change, etag=outdated), Outdated)
            assert refused is Reason.ARCHIVE_CHANGED
    assert archives.get(name, soon()) == back

    # The live coding cannot go, the other can.
    in_use = reason(lambda: archives.drop_coding(name, one.key, soon()), FailedPrecondition)
    assert in_use is Reason.CODING_IN_USE
    alone = archives.drop_coding(name, other.key, soon(), etag=back.etag)
    assert keys(alone) == [one.key]
    missing = reason(lambda: archives.switch(name, other.key, soon()), NotFound)
    assert missing is Reason.CODING_NOT_FOUND

    # With cases it goes by force only, and nothing is left of it.
    MilvusIndex(connection, one).upsert([new_case(one, 1)], soon())
    kept = reason(lambda: archives.delete(name, soon()), FailedPrecondition)
    assert kept is Reason.ARCHIVE_NOT_EMPTY
    archives.delete(name, soon(), force=True)
    assert reason(lambda: archives.get(name, soon()), NotFound) is Reason.ARCHIVE_NOT_FOUND
    assert reason(lambda: archives.delete(name, soon()), NotFound) is Reason.ARCHIVE_NOT_FOUND
    archives.delete(name, soon(), allow_missing=True)
    left = connection.call("looking", soon(), "list_collections")
    assert not [one for one in left if one.startswith(archive_prefix("default", name))]


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"key_id": "other"}, Reason.PATIENT_KEY_MISMATCH),
        ({"bits": 32}, Reason.CODE_LENGTH_MISMATCH),
    ],
)
def test_a_coding_that_cannot_stand_beside_the_live_one_is_refused(
    lite_connection: Connection, new_coding: NewCoding, other: dict[str, object], why: Reason
) -> None:
    archives, coding = Archives(lite_connection, "default"), new_coding()
    archives.create(coding, soon())
    added = replace(second(coding), **other)  # type: ignore[arg-type]  # Any field.
    assert reason(lambda: archives.add_coding(added, soon()), FailedPrecondition) is why
    assert keys(archives.get(coding.archive, soon())) == [coding.key]


def test_names_that_differ_by_case_name_two_archives(
    lite_connection: Connection, new_coding: NewCoding
) -> None:
    archives = Archives(lite_connection, "Some-Tenant")
    codings = [new_coding(tenant="Some-Tenant", archive=name) for name in ("Lung", "lung", "LUNG")]
    made = [archives.create(coding, soon()) for coding in codings]
    archives.delete("lung", soon())
    assert archives.all(soon()) == [made[2], made[0]]
    assert Archives(lite_connection, "some-tenant").all(soon()) == []


@pytest.mark.parametrize(
    "changes", [{"archive": "a b"}, {"archive": ""}, {"model_hash": "x"}, {"bits": 24}]
)
def test_what_cannot_be_an_archive_is_not_created(
    lite_connection: Connection, new_coding: NewCoding, changes: dict[str, object]
) -> None:
    archives, coding = Archives(lite_connection, "default"), new_coding(**changes)
    with pytest.raises(InvalidInput):
        archives.create(coding, soon())
    assert coding.archive not in [one.name for one in archives.all(soon())]


@pytest.mark.parametrize("tenant", ["", "a b", 'x" or tenant != "', "t" * 65])
def test_what_cannot_be_a_tenant_has_no_catalogue(lite_connection: Connection, tenant: str) -> None:
    with pytest.raises(InvalidInput):
        Archives(lite_connection, tenant)


def test_an_archive_from_before_the_catalogue_is_taken_into_it(
    lite_connection: Connection, new_coding: NewCoding, new_case: NewCase
) -> None:
    archives, coding = Archives(lite_connection, "default"), new_coding()
    storage.make(lite_connection, coding, soon())
    MilvusIndex(lite_connection, coding).upsert([new_case(coding, 1)], soon())
    found = archives.get(coding.archive, soon())
    assert found.live == coding
    assert found in archives.all(soon())
    assert archives.open_or_create(coding, soon()) == coding
    archives.add_coding(second(coding), soon())
    switched = archives.switch(coding.archive, second(coding).key, soon(), allow_missing_cases=True)
    assert (switched.archive.live, switched.missing.count) == (second(coding), 1)


def test_all_who_create_one_archive_at_once_get_the_same(
    connection: Connection, new_coding: NewCoding
) -> None:
    coding = new_coding()
    with ThreadPoolExecutor(4) as pool:
        calls = [
            pool.submit(Archives(connection, "default").create, coding, soon()) for _ in "1234"
        ]
        made = {call.result().live for call in calls}
    assert made == {coding}
    assert Archives(connection, "default").get(coding.archive, soon()).live == coding


def test_who_opens_an_archive_that_is_being_created_knows_it_as_its_creator_does(
    connection: Connection, new_coding: NewCoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives, coding = Archives(connection, "default"), new_coding()
    make, seen = storage.make, []

    def made(of: Connection, what: Coding, deadline: Deadline) -> None:
        make(of, what, deadline)
        monkeypatch.setattr(storage, "make", make)
        assert Archives(connection, "default").open_or_create(coding, soon()) == coding
        seen.append(archives.get(coding.archive, soon()).created)

    monkeypatch.setattr(storage, "make", made)
    archives.create(coding, soon())
    assert seen == [archives.get(coding.archive, soon()).created]
    assert seen[0] > 0


def test_the_alias_points_to_the_live_coding(
    standalone: StandaloneServer, new_coding: NewCoding
) -> None:
    connection, coding = Connection(standalone.endpoint, soon()), new_coding()
    archives = Archives(connection, "default")
    alias = archive_prefix("default", coding.archive) + "live"

    def pointed() -> str:
        name: str = connection.call("asking", soon(), "describe_alias", alias)["collection_name"]
        return name

    archives.create(coding, soon())
    assert pointed() == collection_name(coding)
    archives.add_coding(second(coding), soon())
    archives.switch(coding.archive, second(coding).key, soon())
    assert pointed() == collection_name(second(coding))
    archives.delete(coding.archive, soon())
    with pytest.raises(NotFound):
        pointed()
    connection.close()


Change = Callable[[Archives, Coding], object]

CHANGES: dict[str, tuple[int, Change]] = {
    # Name -> how many codings there are before, and the change.
    "create": (0, lambda archives, coding: archives.create(coding, soon())),
    "add": (1, lambda archives, coding: archives.add_coding(second(coding), soon())),
    "drop": (
        2,
        lambda archives, coding: archives.drop_coding(coding.archive, second(coding).key, soon()),
    ),
    "switch": (
        2,
        lambda archives, coding: archives.switch(coding.archive, second(coding).key, soon()),
    ),
    "delete": (2, lambda archives, coding: archives.delete(coding.archive, soon(), force=True)),
}


def made(archives: Archives, coding: Coding, codings: int) -> list[CodingKey] | None:
    if codings > 0:
        archives.create(coding, soon())
    if codings > 1:
        archives.add_coding(second(coding), soon())
    return state(archives, coding)


def state(archives: Archives, coding: Coding) -> list[CodingKey] | None:
    try:
        return keys(archives.get(coding.archive, soon()))
    except NotFound:
        return None


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("change", CHANGES)
def test_whoever_dies_between_two_steps_leaves_the_old_or_the_new_state(
    lite_connection: Connection, lite: LiteServer, new_coding: NewCoding, change: str, shared: bool
) -> None:
    codings, apply = CHANGES[change]
    archives = Archives(lite_connection, "default", shared=shared)
    # What is to be seen of it once nobody dies.
    example = new_coding(shared=shared)
    before = made(archives, example, codings)
    apply(archives, example)
    after = state(archives, example)
    assert before != after
    for calls in count():
        coding = new_coding(shared=shared)
        assert made(archives, coding, codings) == before
        mortal = mortal_connection(lite, lite_connection)
        try:
            with dying_after(calls, mortal):
                apply(Archives(mortal, "default", shared=shared), coding)
            break
        except Died:
            assert state(archives, coding) in (before, after), calls
            # Whoever comes next finishes it.
            apply_again(archives, apply, coding)
            assert state(archives, coding) == after, calls
        finally:
            mortal.close()
    assert calls > 5


def mortal_connection(server: Server, like: Connection) -> Connection:
    connection = Connection(server.endpoint, soon())
    # What it asks once is no step of a change, and another connection has asked it.
    _KNOWN[connection] = capabilities(like, soon())
    return connection


def apply_again(archives: Archives, apply: Change, coding: Coding) -> None:
    try:
        apply(archives, coding)
    except NotFound:
        # What was to be removed is gone.
        assert apply in (CHANGES["drop"][1], CHANGES["delete"][1])


def test_whoever_dies_while_switching_on_a_server_with_aliases_leaves_one_of_the_two(
    standalone: StandaloneServer, new_coding: NewCoding
) -> None:
    connection, coding = Connection(standalone.endpoint, soon()), new_coding()
    archives, codings = Archives(connection, "default"), [coding, second(coding)]
    both = made(archives, coding, 2)
    assert both is not None
    for calls in count():
        mortal = mortal_connection(standalone, connection)
        live = archives.get(coding.archive, soon()).live
        (to,) = [one.key for one in codings if one != live]
        try:
            with dying_after(calls, mortal):
                Archives(mortal, "default").switch(coding.archive, to, soon())
            break
        except Died:
            assert set(state(archives, coding) or []) == set(both)
            archives.switch(coding.archive, to, soon())
            assert archives.get(coding.archive, soon()).live.key == to
            assert archives.get(coding.archive, soon()).switching_to is None
        finally:
            mortal.close()
    assert calls > 10
    connection.close()


def test_a_deleted_archive_that_is_made_again_is_empty(
    lite_connection: Connection, lite: LiteServer, new_coding: NewCoding, new_case: NewCase
) -> None:
    archives = Archives(lite_connection, "default")
    for calls in range(60):
        coding = new_coding()
        archives.create(coding, soon())
        MilvusIndex(lite_connection, coding).upsert([new_case(coding, 1)], soon())
        mortal = mortal_connection(lite, lite_connection)
        try:
            with dying_after(calls, mortal):
                Archives(mortal, "default").delete(coding.archive, soon(), force=True)
            break
        except Died:
            # Either it is there with its cases, or it is made anew without them.
            there = state(archives, coding) is not None
            archives.create(coding, soon())
            assert MilvusIndex(lite_connection, coding).count(soon()) == there
        finally:
            mortal.close()
    assert 5 < calls < 59


def test_a_catalogue_of_another_version_is_not_guessed_at(
    lite_connection: Connection, new_coding: NewCoding
) -> None:
    archives, coding = Archives(lite_connection, "default"), new_coding()
    about = subject("archive", "default", coding.archive)
    Ledger(lite_connection).write(Note(about, "default", '{"layout": 9}', 1), soon())
    with pytest.raises(Internal) as fault:
        archives.get(coding.archive, soon())
    assert fault.value.reason is Reason.INDEX_WRONG
    Ledger(lite_connection).remove(about, soon())
