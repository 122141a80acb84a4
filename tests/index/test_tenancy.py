"""Tenants share a server and never meet, whichever way their cases are kept apart."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from dafh.deadline import Deadline
from dafh.errors import (
    DafhError,
    FailedPrecondition,
    InvalidInput,
    Misconfigured,
    NotFound,
    Reason,
    Unavailable,
)
from dafh.imaging.image import PatientKey
from dafh.index.archives import Archives
from dafh.index.case import Case, CaseId, Coding, CodingKey, case_id
from dafh.index.collection import collection_name
from dafh.index.connection import Connection
from dafh.index.dump import cases as cases_of_dump
from dafh.index.dump import dump, load
from dafh.index.endpoint import Endpoint, endpoint, tenant_database
from dafh.index.erasure import Cases, Eraser, Patient, Study
from dafh.index.filters.parse import parse
from dafh.index.live import OneCoding
from dafh.index.manifest import Folder
from dafh.index.milvus import MilvusIndex
from dafh.index.port import Exclude, Outcome, Query
from dafh.index.privileges import PRIVILEGES
from dafh.index.rows import Rows
from dafh.settings import MilvusSettings, Tenancy
from tests.index.models import second, soon
from tests.index.servers import USER, Server, StandaloneServer

NewCoding = Callable[..., Coding]
NewCase = Callable[..., Case]


@dataclass(frozen=True)
class Sides:
    """Two tenants with archives of the same name, model and code length."""

    victim: MilvusIndex
    attacker: MilvusIndex
    #: The attacker's.
    connection: Connection
    theirs: list[Case]
    own: list[Case]
    folder: Path
    #: Whether each has a database.
    alone: bool

    @property
    def coding(self) -> Coding:
        """The attacker's."""
        return self.attacker.coding

    @property
    def archives(self) -> Archives:
        """The attacker's."""
        return Archives(self.connection, self.coding.tenant, shared=self.coding.shared)

    def seen(self, cases: object) -> None:
        """Assert that the attacker sees their own only."""
        known = {case.id for case in self.own}
        assert isinstance(cases, list)
        assert {case.id for case in cases} <= known


WAYS = ["collection", "shared", "database"]


def database_for(server: StandaloneServer, tenant: str, new_case: NewCase) -> Endpoint:
    """Make a tenant's database, as the administrator does."""
    settings = MilvusSettings(milvus_uri=server.endpoint.uri, milvus_tenancy=Tenancy.DATABASE)
    name = endpoint(settings, tenant).database
    with closing(server.root()) as root:
        root.create_database(name)
    with closing(server.root(name)) as root:
        for kind, privilege in PRIVILEGES:
            root.grant_privilege(USER, kind, privilege, "*", db_name=name)
    where = replace(server.endpoint, database=name)
    # What was granted holds a moment later, one privilege before the other.
    deadline = Deadline.after(120)
    while True:
        try:
            with closing(Connection(where, deadline)) as connection:
                probe = Coding(tenant, "probe", "ab", 1, 64, "key")
                archives = Archives(connection, tenant)
                archives.create(probe, deadline)
                case, index = new_case(probe, 1), MilvusIndex(connection, probe)
                index.upsert([case], deadline)
                index.search(Query(case.code, 1), deadline)
                index.delete([case.id], deadline)
                archives.delete("probe", deadline)
        except (FailedPrecondition, Unavailable):
            deadline.remaining("waiting for the grants")
            time.sleep(0.1)
        else:
            return where


@pytest.fixture(scope="module", params=WAYS)
def sides(
    request: pytest.FixtureRequest,
    server: Server,
    new_coding: NewCoding,
    new_case: NewCase,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Sides]:
    way = request.param
    if way == "database" and not isinstance(server, StandaloneServer):
        pytest.skip("Milvus Lite has one database")
    unique = uuid.uuid4().hex[:8]
    tenants = [f"victim-{unique}", f"attacker-{unique}"]
    template = new_coding(shared=way == "shared", model_hash=uuid.uuid4().hex)
    connections, indexes, cases = [], [], []
    for number, tenant in enumerate(tenants):
        coding = replace(template, tenant=tenant)
        where = server.endpoint
        if way == "database" and isinstance(server, StandaloneServer):
            where = database_for(server, tenant, new_case)
        connection = Connection(where, soon())
        archives = Archives(connection, tenant, shared=way == "shared")
        archives.create(coding, soon())
        index = MilvusIndex(connection, archives.get(coding.archive, soon()).live)
        kept = [new_case(coding, 100 * number + one, label=f"of {tenant}") for one in range(20)]
        index.upsert(kept, soon())
        connections.append(connection)
        indexes.append(index)
        cases.append(kept)
    (victim, attacker), (theirs, own) = indexes, cases
    folder = tmp_path_factory.mktemp("dumps")
    yield Sides(victim, attacker, connections[1], theirs, own, folder, way == "database")
    for connection in connections:
        connection.close()


def refuses(call: Callable[[], object], *kinds: type[DafhError]) -> None:
    with pytest.raises(kinds):
        call()


def search_with_their_codes(sides: Sides) -> None:
    for case in sides.theirs:
        hits = sides.attacker.search(Query(case.code, 50), soon()).hits
        sides.seen([hit.case for hit in hits])


def search_with_a_filter_on_what_they_have(sides: Sides) -> None:
    case = sides.theirs[0]
    for text in (
        f'label = "{case.label}"',
        f"sop_instance_uid = {case.sop_instance_uid}",
        f'label = "{case.label}" OR frame >= 0',
        "NOT (frame >= 0) OR frame >= 0",
    ):
        hits = sides.attacker.search(Query(case.code, 50, filter=parse(text)), soon()).hits
        sides.seen([hit.case for hit in hits])


def break_out_of_a_filter(sides: Sides) -> None:
    tenant = sides.victim.coding.tenant
    for text in (
        f'label = "x\\" or tenant == \\"{tenant}"',
        f"label = 'x\" or tenant == \"{tenant}'",
        'label != "\\") or (id >= \\""',
    ):
        query = Query(sides.theirs[0].code, 50, filter=parse(text))
        sides.seen([hit.case for hit in sides.attacker.search(query, soon()).hits])
    for text in (f'tenant = "{tenant}"', 'archive != "x"', "patient_key:*", f'key_id = "{tenant}"'):
        refuses(lambda text=text: parse(text), InvalidInput)  # type: ignore[misc]  # Bound at once.


def break_out_of_an_exclusion(sides: Sides) -> None:
    tenant = sides.victim.coding.tenant
    for exclude in (
        Exclude(sop_instance_uid=f'1" or tenant == "{tenant}'),
        Exclude(patient_key=PatientKey(f'" or tenant == "{tenant}')),
    ):
        query = Query(sides.theirs[0].code, 50, exclude=exclude)
        refuses(lambda query=query: sides.attacker.search(query, soon()), InvalidInput)  # type: ignore[misc]  # As well.


def read_by_their_keys(sides: Sides) -> None:
    ids = [case.id for case in sides.theirs]
    assert sides.attacker.get(ids, soon()) == {}
    tenant = sides.victim.coding.tenant
    strange = CaseId(f'{ids[0]}"] or tenant == "{tenant}" or id in ["')
    assert sides.attacker.get([strange], soon()) == {}


def delete_by_their_keys(sides: Sides) -> None:
    assert sides.attacker.delete([case.id for case in sides.theirs], soon()) == 0


def write_under_their_keys(sides: Sides) -> None:
    for case in sides.theirs:
        refuses(lambda case=case: sides.attacker.upsert([case], soon()), InvalidInput)  # type: ignore[misc]  # As well.


def write_their_instances(sides: Sides) -> None:
    coding = sides.coding
    taken = [
        replace(case, id=case_id(coding.tenant, coding.archive, case.sop_instance_uid, 1))
        for case in sides.theirs
    ]
    assert sides.attacker.upsert(taken, soon()) == [Outcome.ADDED] * len(taken)
    assert sides.attacker.delete([case.id for case in taken], soon()) == len(taken)


def count_and_scan(sides: Sides) -> None:
    assert sides.attacker.count(soon()) == len(sides.own)
    sides.seen(list(sides.attacker.scan(soon())))
    first, last = min(case.id for case in sides.theirs), max(case.id for case in sides.theirs)
    sides.seen(list(sides.attacker.scan(soon(), after=first[:-1], before=last + "0")))


def page_on_from_their_place(sides: Sides) -> None:
    code = sides.theirs[0].code
    end = sides.victim.search(Query(code, 3), soon()).end
    hits = sides.attacker.search(Query(code, 50, after=end), soon()).hits
    sides.seen([hit.case for hit in hits])


def open_and_change_their_archive(sides: Sides) -> None:
    theirs = sides.victim.coding
    for change in (
        lambda: sides.archives.open(theirs, soon()),
        lambda: sides.archives.create(theirs, soon()),
        lambda: sides.archives.add_coding(second(theirs), soon()),
    ):
        refuses(change, InvalidInput)


def erase_their_cases(sides: Sides) -> None:
    eraser = Eraser(sides.connection, sides.coding.tenant, sides.coding.archive)
    case = sides.theirs[0]
    for selection in (
        Cases(tuple(one.id for one in sides.theirs)),
        Study(case.study_instance_uid),
        Patient(case.patient_key, sides.coding.key_id),
    ):
        assert eraser.count(selection, soon()) == 0
        assert eraser.erase(selection, soon()) == 0


def dump_and_load_their_cases(sides: Sides) -> None:
    own, theirs = Folder(sides.folder / uuid.uuid4().hex), Folder(sides.folder / uuid.uuid4().hex)
    made = dump(sides.attacker, own, lambda _: 0, soon())
    sides.seen(list(cases_of_dump(own, made)))
    dump(sides.victim, theirs, lambda _: 0, soon())
    writer = OneCoding(sides.attacker)
    refuses(lambda: load(theirs, writer, sides.coding, soon()), FailedPrecondition)


def list_and_delete_archives(sides: Sides) -> None:
    assert [one.tenant for one in sides.archives.all(soon())] == [sides.coding.tenant]
    # An archive of their own name for it, deleted and made again, leaves the other one.
    sides.archives.delete(sides.coding.archive, soon(), force=True)
    refuses(lambda: sides.archives.get(sides.coding.archive, soon()), NotFound)
    sides.archives.create(sides.coding, soon())
    MilvusIndex(sides.connection, sides.coding).upsert(sides.own, soon())
    refuses(
        lambda: sides.archives.switch(sides.coding.archive, CodingKey("0" * 16), soon()), NotFound
    )


def list_collections(sides: Sides) -> None:
    names = sides.connection.call("listing", soon(), "list_collections")
    theirs = collection_name(sides.victim.coding)
    # A database of its own hides even that there is something; else a name is all that is seen.
    assert (theirs not in names) is sides.alone
    for name in names:
        assert sides.victim.coding.tenant not in name
        assert sides.victim.coding.archive not in name


ATTEMPTS = [
    search_with_their_codes,
    search_with_a_filter_on_what_they_have,
    break_out_of_a_filter,
    break_out_of_an_exclusion,
    read_by_their_keys,
    delete_by_their_keys,
    write_under_their_keys,
    write_their_instances,
    count_and_scan,
    page_on_from_their_place,
    open_and_change_their_archive,
    erase_their_cases,
    dump_and_load_their_cases,
    list_and_delete_archives,
    list_collections,
]


@pytest.mark.stack
@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.__name__)
def test_no_tenant_reaches_the_cases_of_another(
    sides: Sides, attempt: Callable[[Sides], None]
) -> None:
    attempt(sides)
    # Whatever was tried: both have what they had.
    for index, cases in ((sides.victim, sides.theirs), (sides.attacker, sides.own)):
        assert list(index.scan(soon())) == sorted(cases, key=lambda case: case.id)


@pytest.mark.stack
def test_shared_codings_lie_in_one_collection_and_others_do_not(
    server: Server, new_coding: NewCoding, new_case: NewCase
) -> None:
    model = uuid.uuid4().hex
    with closing(Connection(server.endpoint, soon())) as connection:
        made = []
        for tenant in ("one", "two"):
            for archive in ("a", "b"):
                coding = new_coding(tenant=tenant, archive=archive + model[:8], model_hash=model)
                archives = Archives(connection, tenant, shared=True)
                archives.create(coding, soon())
                made.append(archives.get(coding.archive, soon()).live)
        assert len({collection_name(coding) for coding in made}) == 1
        alone = new_coding(tenant="one", archive="c" + model[:8], model_hash=model)
        Archives(connection, "one").create(alone, soon())
        assert collection_name(alone) != collection_name(made[0])
        for number, coding in enumerate(made):
            MilvusIndex(connection, coding).upsert([new_case(coding, number)], soon())
        # Of one tenant's two archives neither holds the other's.
        for number, coding in enumerate(made):
            kept = Rows(connection, coding).keys("", 10, soon())
            assert kept == [new_case(coding, number).id]
        # An archive goes with its cases; those of the others in the collection stay.
        Archives(connection, "one", shared=True).delete(made[0].archive, soon(), force=True)
        assert Rows(connection, made[0]).keys("", 10, soon()) == []
        assert Rows(connection, made[3]).count(soon()) == 1


def test_each_tenant_has_a_database_where_that_was_chosen() -> None:
    settings = MilvusSettings(milvus_tenancy=Tenancy.DATABASE)
    names = {endpoint(settings, tenant).database for tenant in ("a", "b", "a-b", "a.b", "A")}
    assert len(names) == 5
    assert all(name.isidentifier() and len(name) < 64 for name in names)
    assert endpoint(MilvusSettings(), "a").database == ""
    assert endpoint(MilvusSettings(milvus_database="x"), "a").database == "x"
    with pytest.raises(Misconfigured) as refusal:
        endpoint(MilvusSettings(milvus_tenancy=Tenancy.DATABASE, milvus_database="x"), "a")
    assert refusal.value.reason is Reason.SETTING_INVALID
    assert tenant_database("a") == endpoint(settings, "a").database
