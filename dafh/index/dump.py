"""Dump an archive's coding into Parquet files, and load it into any other.

A dump is a folder of files in canonical order: each holds a range of primary keys, in order, so
that equal archives give equal rows wherever they were. Each file is written whole or not at all
and says what it is of, so that a dump that was cut off goes on where it was. The manifest comes
last: without it there is no dump.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from dafh.deadline import Deadline
from dafh.errors import Conflict, FailedPrecondition, Reason, Unavailable
from dafh.index import parquet
from dafh.index.archive import require_same
from dafh.index.case import Case, Coding, case_id
from dafh.index.live import Arrival, CaseWriter
from dafh.index.manifest import (
    CASE_COLUMNS,
    COLUMNS,
    MANIFEST,
    PLAN,
    Digest,
    Manifest,
    Part,
    Plan,
    Store,
    part_names,
    read_manifest,
    read_plan,
    unreadable,
)
from dafh.index.port import CaseIndex, Outcome
from dafh.index.rows import BATCH

#: Rows of one file, about.
PART_ROWS = 100_000
#: How often a dump begins again because cases were erased meanwhile.
_ROUNDS = 3

#: Returns a number that grows when an erasure begins and when it ends (`ErasureCount.read`).
Erasures = Callable[[Deadline], int]
#: Told of each file that is done, and of how many.
Progress = Callable[[int, int], None]


def dump(
    index: CaseIndex,
    store: Store,
    erasures: Erasures,
    deadline: Deadline,
    *,
    columns: tuple[str, ...] = COLUMNS,
    progress: Progress = lambda _done, _all: None,
) -> Manifest:
    """Write all cases of a coding into a store, or go on with a dump of it that was cut off.

    Parameters
    ----------
    columns
        Of `COLUMNS`; without all `CASE_COLUMNS` it is an export that cannot be loaded again.

    Raises
    ------
    Conflict
        The store holds a complete dump, or another one that was cut off.
    Unavailable
        Cases kept being erased; or the index does not answer.
    """
    if MANIFEST in store.names():
        raise _exists("a complete dump")
    for _ in range(_ROUNDS):
        plan = begin(index, store, erasures, deadline, columns=columns)
        done = []
        for number in range(plan.parts):
            done.append(write_part(index, store, plan, number, deadline))
            progress(number + 1, plan.parts)
        if erasures(deadline) == plan.erasures:
            return finish(store, plan, done)
    raise Unavailable(
        Reason.INDEX_UNAVAILABLE,
        "Cases were erased again and again while the archive was dumped.",
        remedy="Dump it when nobody erases.",
    )


def begin(
    index: CaseIndex,
    store: Store,
    erasures: Erasures,
    deadline: Deadline,
    *,
    columns: tuple[str, ...] = COLUMNS,
) -> Plan:
    """Return the plan of a dump: that of one that was cut off, where no case was erased since.

    It is kept in the store, so that several programs can share the work.

    Raises
    ------
    Conflict
        The store holds a dump of something else that was cut off.
    """
    coding, count = index.coding, erasures(deadline)
    if PLAN in store.names():
        former = read_plan(store)
        if (former.coding, former.columns) != (replace(coding, shared=False), columns):
            raise _exists("a dump of something else that was cut off")
        if former.erasures == count:
            return former
    plan = Plan(
        layout=1,
        tenant=coding.tenant,
        archive=coding.archive,
        model_hash=coding.model_hash,
        model_version=coding.model_version,
        bits=coding.bits,
        key_id=coding.key_id,
        columns=columns,
        parts=max(1, math.ceil(index.count(deadline) / PART_ROWS)),
        began=time.time_ns() // 1000,
        erasures=count,
    )
    store.write(PLAN, plan.model_dump_json().encode())
    return plan


def write_part(index: CaseIndex, store: Store, plan: Plan, number: int, deadline: Deadline) -> Part:
    """Write one file of a dump, unless it is there."""
    there = written_part(store, plan, number)
    if there is not None:
        return there
    after, before = plan.range(number)
    part, content = parquet.written(plan, number, index.scan(deadline, after=after, before=before))
    store.write(plan.name(number), content)
    return part


def written_part(store: Store, plan: Plan, number: int) -> Part | None:
    """Return what is in a file of a dump; ``None`` where it is missing, or of another plan."""
    name = plan.name(number)
    if name not in store.names():
        return None
    of, part = parquet.described(store.read(name))
    return part if of == plan else None


def finish(store: Store, plan: Plan, parts: Sequence[Part]) -> Manifest:
    """Write the manifest: now it is a dump."""
    manifest = Manifest(
        plan=plan,
        parts=tuple(parts),
        rows=sum(part.rows for part in parts),
        cases=Digest.total(part.cases for part in parts),
    )
    # Files of a plan that was given up hold cases that were erased since.
    for name in set(part_names(store)) - {part.name for part in parts}:
        store.remove(name)
    store.write(MANIFEST, f"{manifest.model_dump_json(indent=1)}\n".encode())
    store.remove(PLAN)
    return manifest


def cases(store: Store, manifest: Manifest) -> Iterator[Case]:
    """Yield the cases of a dump in order, each file checked before.

    Raises
    ------
    InvalidInput
        A file is missing, damaged, or not of this dump.
    """
    _require_whole(manifest)
    for part in manifest.parts:
        digest = Digest()
        for case in parquet.cases_of(manifest.plan, part, store.read(part.name)):
            digest.add(case)
            yield case
        if digest.hex() != part.cases:
            raise unreadable(f"{part.name} does not hold the cases that it tells")


def load(
    store: Store,
    writer: CaseWriter,
    coding: Coding,
    deadline: Deadline,
    *,
    progress: Progress = lambda _done, _all: None,
) -> Counter[Outcome]:
    """Store the cases of a dump in a coding; may be cut off and started again.

    Cases that are there already stay unchanged, so that a second run writes what is missing only.
    Ingest times are kept. An archive of another name is no fault: its primary keys are made anew.

    Parameters
    ----------
    coding
        Of `writer`, into which the cases go.

    Raises
    ------
    InvalidInput
        The dump is incomplete or damaged.
    FailedPrecondition
        It is of another model, code length, tenant or patient key.
    """
    manifest = read_manifest(store)
    require_loadable(manifest, coding)
    # Before anything is written: a dump that is damaged at its end leaves no half of it.
    for part in manifest.parts:
        for _ in parquet.cases_of(manifest.plan, part, store.read(part.name)):
            break
    stream, outcomes, stored = cases(store, manifest), Counter[Outcome](), 0
    while batch := list(islice(stream, BATCH)):
        arrivals = [Arrival(_renamed(case, coding), {coding.key: case.code}) for case in batch]
        outcomes.update(writer.write(arrivals, deadline))
        stored += len(batch)
        progress(stored, manifest.rows)
    return outcomes


def require_loadable(manifest: Manifest, coding: Coding) -> None:
    """Refuse to load a dump into a coding that its cases cannot be of.

    Raises
    ------
    InvalidInput
        It is an export that lacks columns.
    FailedPrecondition
        It is of another model, code length, tenant or patient key.
    """
    _require_whole(manifest)
    if manifest.plan.tenant != coding.tenant:
        raise FailedPrecondition(
            Reason.PATIENT_KEY_MISMATCH,
            "The dump is another tenant's: its patient keys mean nothing here.",
            remedy="Load it as its own tenant, or index the images again.",
            subject="tenant",
        )
    require_same(coding, manifest.plan.coding)


def _require_whole(manifest: Manifest) -> None:
    if not set(CASE_COLUMNS) <= set(manifest.plan.columns):
        raise unreadable("it is an export that lacks columns")


def _renamed(case: Case, coding: Coding) -> Case:
    key = case_id(coding.tenant, coding.archive, case.sop_instance_uid, case.frame)
    return replace(case, id=key)


def _exists(what: str) -> Conflict:
    return Conflict(
        Reason.DUMP_EXISTS,
        f"The folder holds {what}.",
        remedy="Choose an empty folder.",
        subject="dump",
    )
