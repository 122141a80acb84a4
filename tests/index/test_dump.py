"""A dump is the archive: whole, checked, the same wherever it was made and wherever it goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dafh.codes import BITS
from dafh.deadline import Deadline
from dafh.errors import Conflict, DafhError, FailedPrecondition, InvalidInput, Reason, Unavailable
from dafh.index import dump as dumps
from dafh.index.archives import Archives
from dafh.index.case import Case, Coding
from dafh.index.connection import Connection
from dafh.index.dump import begin, cases, dump, finish, load, write_part
from dafh.index.endpoint import Endpoint
from dafh.index.erasure import Cases, Eraser
from dafh.index.exact import ExactIndex
from dafh.index.live import OneCoding
from dafh.index.manifest import (
    CASE_COLUMNS,
    CODING_COLUMNS,
    COLUMNS,
    MANIFEST,
    PLAN,
    Digest,
    Folder,
    Plan,
    read_manifest,
)
from dafh.index.milvus import MilvusIndex
from dafh.index.port import CaseIndex, Outcome, Query
from dafh.index.progress import ErasureCount
from tests.index.models import soon
from tests.index.servers import LiteServer, Server, StandaloneServer

NewCoding = Callable[..., Coding]
NewCase = Callable[..., Case]
Opened = Callable[[Endpoint, Coding], MilvusIndex]


def never_erased(_: Deadline) -> int:
    return 0


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few cases be several files, and several writes."""
    monkeypatch.setattr(dumps, "PART_ROWS", 20)
    monkeypatch.setattr(dumps, "BATCH", 10)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "dump")


@pytest.fixture
def stocked(new_coding: NewCoding, new_case: NewCase) -> ExactIndex:
    coding = new_coding()
    return ExactIndex(coding, [new_case(coding, number, label="é漢") for number in range(70)])


@pytest.mark.stack
@pytest.mark.parametrize("bits", [BITS[0], BITS[-1]])
def test_a_dump_is_the_same_from_every_adapter_and_goes_into_every_other(
    lite: LiteServer,
    standalone: StandaloneServer,
    opened: Opened,
    new_coding: NewCoding,
    new_case: NewCase,
    tmp_path: Path,
    bits: int,
) -> None:
    coding = new_coding(bits=bits)
    kept = [new_case(coding, number, label="a'b\\", frame=1 + number % 2) for number in range(50)]
    here, there = opened(lite.endpoint, coding), opened(standalone.endpoint, coding)
    exact = ExactIndex(coding)
    exact.upsert(kept, soon())
    stores = [Folder(tmp_path / name) for name in ("exact", "lite", "standalone")]
    made = []
    # Each is loaded from the dump of the one before.
    indexes: list[CaseIndex] = [exact, here, there]
    for number, index in enumerate(indexes):
        if number:
            loaded = load(stores[number - 1], OneCoding(index), coding, soon())
            assert loaded == Counter({Outcome.ADDED: 50})
        made.append(dump(index, stores[number], never_erased, soon()))
    assert len({one.cases for one in made}) == 1
    rows = [[(part.name, part.rows, part.cases) for part in one.parts] for one in made]
    assert rows[0] == rows[1] == rows[2]
    assert len(rows[0]) == 3
    for store, one in zip(stores, made, strict=True):
        assert list(cases(store, one)) == list(exact.scan(soon()))
    query = Query(kept[3].code, 20)
    assert there.search(query, soon()) == exact.search(query, soon())
    # Once more changes nothing.
    again = load(stores[0], OneCoding(there), coding, soon())
    assert again == Counter({Outcome.UNCHANGED: 50})


def test_the_digest_tells_every_difference_but_that_of_time(
    new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    one, other = new_case(coding, 1), new_case(coding, 2)

    def digest(*cases: Case) -> str:
        made = Digest()
        for case in cases:
            made.add(case)
        return made.hex()

    assert digest(one, other) == digest(other, one) == Digest.total([digest(one), digest(other)])
    assert digest(one) == digest(replace(one, ingest_time=5))
    others = [
        (one,),
        (one, one),
        (one, replace(other, label="x")),
        (one, replace(other, code=one.code)),
    ]
    assert len({digest(one, other), *(digest(*some) for some in others)}) == 5


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 1000])
def test_the_files_share_all_primary_keys_out(parts: int, stocked: ExactIndex) -> None:
    plan = Plan(
        layout=1, tenant="t", archive="a", model_hash="ab", model_version=1, bits=64, key_id="k",
        columns=COLUMNS, parts=parts, began=0, erasures=0,
    )  # fmt: skip
    ranges = [plan.range(number) for number in range(parts)]
    assert (ranges[0][0], ranges[-1][1]) == ("", None)
    for (_, end), (after, _) in pairwise(ranges):
        assert end is not None
        assert int(end, 16) == int(after, 16) + 1
    found = [
        case
        for after, before in ranges
        for case in stocked.scan(soon(), after=after, before=before)
    ]
    assert found == list(stocked.scan(soon()))


def test_an_empty_archive_has_a_dump(new_coding: NewCoding, folder: Folder) -> None:
    coding = new_coding()
    made = dump(ExactIndex(coding), folder, never_erased, soon())
    assert (made.rows, len(made.parts)) == (0, 1)
    assert load(folder, OneCoding(ExactIndex(coding)), coding, soon()) == Counter()


def test_a_dump_that_was_cut_off_goes_on_and_is_none_before_its_end(
    stocked: ExactIndex, folder: Folder, tmp_path: Path
) -> None:
    whole = dump(stocked, Folder(tmp_path / "whole"), never_erased, soon())
    plan = begin(stocked, folder, never_erased, soon())
    written = [write_part(stocked, folder, plan, number, soon()) for number in (0, 2)]
    with pytest.raises(InvalidInput, match="not finished"):
        read_manifest(folder)
    before = {name: folder.read(name) for name in folder.names()}
    went_on = dump(stocked, folder, never_erased, soon())
    assert went_on.plan.began == plan.began
    assert went_on.parts[0] == written[0]
    assert {name: folder.read(name) for name in before if name != PLAN} == {
        name: content for name, content in before.items() if name != PLAN
    }
    assert went_on.cases == whole.cases
    assert folder.names() == sorted([MANIFEST, *(part.name for part in went_on.parts)])


def test_several_programs_that_share_a_dump_make_the_same(
    stocked: ExactIndex, folder: Folder, tmp_path: Path
) -> None:
    plans = [begin(stocked, folder, never_erased, soon()) for _ in range(3)]
    assert plans[0] == plans[1] == plans[2]
    parts = {
        number: write_part(stocked, folder, plans[shard], number, soon())
        for shard in range(3)
        for number in range(shard, plans[0].parts, 3)
    }
    made = finish(folder, plans[0], [parts[number] for number in sorted(parts)])
    assert made.cases == dump(stocked, Folder(tmp_path / "one"), never_erased, soon()).cases
    assert list(cases(folder, made)) == list(stocked.scan(soon()))


def test_a_dump_is_never_written_over_another(
    stocked: ExactIndex, folder: Folder, new_coding: NewCoding
) -> None:
    other = ExactIndex(new_coding())
    begin(stocked, folder, never_erased, soon())
    for _ in range(2):
        with pytest.raises(Conflict) as refusal:
            dump(other, folder, never_erased, soon())
        assert refusal.value.reason is Reason.DUMP_EXISTS
    dump(stocked, folder, never_erased, soon())
    with pytest.raises(Conflict):
        dump(stocked, folder, never_erased, soon())


def test_what_else_lies_in_the_folder_stays(stocked: ExactIndex, folder: Folder) -> None:
    folder.write("notes.txt", b"mine")
    dump(stocked, folder, never_erased, soon())
    assert folder.read("notes.txt") == b"mine"


def test_nobody_else_can_read_a_dump(stocked: ExactIndex, tmp_path: Path) -> None:
    path = tmp_path / "dump"
    dump(stocked, Folder(path), never_erased, soon())
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o600}
    assert path.stat().st_mode & 0o777 == 0o700


def test_a_dump_begins_again_when_cases_were_erased_meanwhile(
    stocked: ExactIndex, folder: Folder
) -> None:
    victim = next(stocked.scan(soon())).id
    erasures = 0

    def erase_after_the_first(done: int, _: int) -> None:
        nonlocal erasures
        if done == 1 and not erasures:
            stocked.delete([victim], soon())
            erasures = 2

    made = dump(stocked, folder, lambda _: erasures, soon(), progress=erase_after_the_first)
    assert made.plan.erasures == 2
    assert victim not in {case.id for case in cases(folder, made)}
    # And one that was cut off before an erasure holds nothing of it when it is done.
    again = Folder(folder.path / "again")
    plan = begin(stocked, again, lambda _: erasures, soon())
    write_part(stocked, again, plan, 0, soon())
    victim = next(stocked.scan(soon())).id
    stocked.delete([victim], soon())
    made = dump(stocked, again, lambda _: 4, soon())
    assert victim not in {case.id for case in cases(again, made)}


def test_a_dump_gives_up_where_erasures_never_end(stocked: ExactIndex, folder: Folder) -> None:
    count = iter(range(1000))
    with pytest.raises(Unavailable):
        dump(stocked, folder, lambda _: next(count), soon())
    assert MANIFEST not in folder.names()


@pytest.mark.stack
def test_what_was_erased_is_in_no_later_dump(
    server: Server, new_coding: NewCoding, new_case: NewCase, folder: Folder
) -> None:
    coding = new_coding()
    connection = Connection(server.endpoint, soon())
    archives = Archives(connection, coding.tenant)
    archives.create(coding, soon())
    index = MilvusIndex(connection, coding)
    kept = [new_case(coding, number) for number in range(50)]
    index.upsert(kept, soon())
    count = ErasureCount(archives.ledger, coding.tenant, coding.archive)
    plan = begin(index, folder, count.read, soon())
    for number in range(plan.parts - 1):
        write_part(index, folder, plan, number, soon())
    gone = [case.id for case in kept[:7]]
    assert Eraser(connection, coding.tenant, coding.archive).erase(Cases(tuple(gone)), soon()) == 7
    made = dump(index, folder, count.read, soon())
    assert {case.id for case in cases(folder, made)} == {case.id for case in kept[7:]}
    connection.close()


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def rewritten(folder: Folder, old: bytes, new: bytes) -> None:
    manifest = folder.read(MANIFEST)
    assert old in manifest
    folder.write(MANIFEST, manifest.replace(old, new))


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder, part: folder.write(part, flipped(folder.read(part))),
        lambda folder, part: folder.write(part, folder.read(part)[:-1]),
        lambda folder, part: folder.write(part, b""),
        lambda folder, part: folder.remove(part),
        lambda folder, part: folder.write(part, folder.read("cases-00000-of-00004.parquet")),
        lambda folder, _: folder.write(MANIFEST, b"{}"),
        lambda folder, _: rewritten(folder, b'"rows": 7', b'"rows": 8'),
        lambda folder, _: rewritten(folder, b'"bits": 64', b'"bits": 8'),
        lambda folder, _: folder.remove(MANIFEST),
    ],
)  # fmt: skip
def test_nothing_of_a_damaged_dump_is_loaded(
    stocked: ExactIndex, folder: Folder, harm: Callable[[Folder, str], None]
) -> None:
    made = dump(stocked, folder, never_erased, soon())
    harm(folder, made.parts[-1].name)
    target = ExactIndex(stocked.coding)
    with pytest.raises(InvalidInput):
        load(folder, OneCoding(target), target.coding, soon())
    assert target.count(soon()) == 0


@pytest.mark.parametrize("column", CODING_COLUMNS)
def test_a_row_that_tells_of_another_coding_is_not_loaded(
    stocked: ExactIndex, folder: Folder, column: str
) -> None:
    made = dump(stocked, folder, never_erased, soon())
    last = made.parts[-1]
    # A file that somebody put together of two exports, and whose manifest agrees.
    table = pq.read_table(folder.path / last.name)
    place = table.column_names.index(column)
    values = [*table[column].to_pylist()[:-1], 7]
    changed = table.set_column(place, table.schema.field(column), [values])
    pq.write_table(changed, folder.path / last.name)
    digest = sha256(folder.read(last.name)).hexdigest()
    rewritten(folder, last.sha256.encode(), digest.encode())
    target = ExactIndex(stocked.coding)
    with pytest.raises(InvalidInput, match=f"another {column}"):
        load(folder, OneCoding(target), target.coding, soon())
    assert target.count(soon()) == 0


def test_a_dump_of_before_its_rows_told_of_their_coding_is_loaded(
    stocked: ExactIndex, folder: Folder
) -> None:
    dump(stocked, folder, never_erased, soon(), columns=CASE_COLUMNS)
    target = ExactIndex(stocked.coding)
    load(folder, OneCoding(target), target.coding, soon())
    assert list(target.scan(soon())) == list(stocked.scan(soon()))


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"tenant": "other"}, Reason.PATIENT_KEY_MISMATCH),
        ({"key_id": "other"}, Reason.PATIENT_KEY_MISMATCH),
        ({"model_hash": "cd" * 32}, Reason.MODEL_NOT_LOADED),
        ({"bits": 32}, Reason.CODE_LENGTH_MISMATCH),
    ],
)
def test_a_dump_is_not_loaded_where_its_cases_mean_something_else(
    stocked: ExactIndex, folder: Folder, other: dict[str, object], reason: Reason
) -> None:
    dump(stocked, folder, never_erased, soon())
    target = ExactIndex(replace(stocked.coding, **other))  # type: ignore[arg-type]  # Any field.
    with pytest.raises(FailedPrecondition) as refusal:
        load(folder, OneCoding(target), target.coding, soon())
    assert refusal.value.reason is reason


def test_a_dump_goes_into_an_archive_of_another_name_under_new_keys(
    stocked: ExactIndex, folder: Folder
) -> None:
    dump(stocked, folder, never_erased, soon())
    target = ExactIndex(replace(stocked.coding, archive="other"))
    load(folder, OneCoding(target), target.coding, soon())

    def known(index: ExactIndex) -> set[tuple[str, int]]:
        return {(case.sop_instance_uid, case.ingest_time) for case in index.scan(soon())}

    assert known(target) == known(stocked)
    assert not {case.id for case in target.scan(soon())} & {
        case.id for case in stocked.scan(soon())
    }


def test_the_files_are_read_by_other_programs(stocked: ExactIndex, folder: Folder) -> None:
    dump(stocked, folder, never_erased, soon())
    table = pq.read_table(folder.path)
    assert table.column_names == list(COLUMNS)
    assert not {"tenant", "archive", "key_id"} & set(table.column_names)
    assert set(table["bits"].to_pylist()) == {stocked.coding.bits}
    assert set(table["model_version"].to_pylist()) == {stocked.coding.model_version}
    codes = np.frombuffer(b"".join(table["code"].to_pylist()), np.uint8).reshape(-1, 8)
    assert codes.tobytes() == b"".join(case.code.packed for case in stocked.scan(soon()))


def test_a_full_disk_is_said_in_a_sentence(
    stocked: ExactIndex, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DafhError) as refusal:
        dump(stocked, folder, never_erased, soon())
    assert refusal.value.reason is Reason.DISK_FULL
    assert MANIFEST not in folder.names()


def test_an_export_of_some_columns_has_these_only_and_is_not_loaded(
    stocked: ExactIndex, folder: Folder
) -> None:
    columns = ("id", "sop_instance_uid", "frame", "code", "label")
    made = dump(stocked, folder, never_erased, soon(), columns=columns)
    table = pq.read_table(folder.path)
    assert tuple(table.column_names) == columns
    assert table["id"].to_pylist() == [case.id for case in stocked.scan(soon())]
    target = ExactIndex(stocked.coding)
    for read in (
        lambda: load(folder, OneCoding(target), target.coding, soon()),
        lambda: next(cases(folder, made)),
    ):
        with pytest.raises(InvalidInput, match="export"):
            read()
    # It is the same archive, and says so.
    assert made.cases == dump(stocked, Folder(folder.path / "x"), never_erased, soon()).cases
