"""``dafh export-codes`` and ``dafh import-codes``: an archive as Parquet files, and back."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Annotated

import typer

from dafh.deadline import Deadline
from dafh.errors import Conflict, InvalidInput, Reason, Unavailable
from dafh.index import dump
from dafh.index.case import DEFAULT_ARCHIVE, DEFAULT_TENANT
from dafh.index.indexing import Indexing
from dafh.index.manifest import MANIFEST, PLAN, Manifest, Plan, Store, read_manifest, read_plan
from dafh.index.milvus import MilvusIndex
from dafh.index.progress import ErasureCount
from dafh_jobs.deployment import chosen_coding, opened, soon
from dafh_jobs.options import AsJson, CodingOption, DataDir, Tenant
from dafh_jobs.progress import bar
from dafh_jobs.shard import WHOLE, Shard, chosen_shard
from dafh_jobs.stores import store_at

#: Seconds that a part waits for part 0 to make the plan.
PLAN_S = 600.0
_GLANCE = 0.5


def export_codes(
    archive: Annotated[str, typer.Argument(help="Name of the archive.")] = DEFAULT_ARCHIVE,
    out: Annotated[str, typer.Option(help="Folder, or address in an object store.")] = "codes",
    coding: CodingOption = "",
    shard: Annotated[str, typer.Option(help="i/n: write only part i of n of the files.")] = "",
    tenant: Tenant = DEFAULT_TENANT,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Write all codes of an archive, with the UIDs and labels of their cases, as Parquet files.

    Every case that was stored before the export began (T0 in the manifest) and that nobody touched
    since is in it once. The same command goes on where one was cut off. The files hold UIDs and
    pseudonyms of patients: keep them as safe as the archive.
    """
    store, part = store_at(out), chosen_shard(shard)
    with opened(tenant, data_dir) as found, bar("exporting") as progress:
        chosen = chosen_coding(found.archives.get(archive, soon()), coding)
        Indexing(found.connection, chosen).make_searchable(soon())
        index = MilvusIndex(found.connection, chosen)
        erasures = ErasureCount(found.archives.ledger, tenant, archive).read
        if part == WHOLE:
            manifest = dump.dump(index, store, erasures, Deadline.never(), progress=progress)
        else:
            made = _export_part(index, store, erasures, part, progress)
            if made is None:
                typer.echo(f"part {part} is written; the last one writes the manifest", err=True)
                return
            manifest = made
    _tell(manifest, as_json=as_json)


def import_codes(
    source: Annotated[str, typer.Argument(help="Folder or address of an export.")],
    archive: Annotated[
        str, typer.Option(help="Archive to import into; by default that of the export.")
    ] = "",
    tenant: Tenant = DEFAULT_TENANT,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Store the cases of an export in an archive, which is made where there is none.

    What is there already stays. The same command goes on where one was cut off. A case that was
    erased after the export comes back with it.
    """
    store = store_at(source)
    manifest = read_manifest(store)
    wanted = replace(manifest.plan.coding, tenant=tenant, archive=archive or manifest.plan.archive)
    dump.require_loadable(manifest, wanted)
    with opened(tenant, data_dir) as found, bar("importing") as progress:
        wanted = found.archives.open_or_create(wanted, soon())
        writer = found.writer(wanted)
        outcomes = dump.load(store, writer, wanted, Deadline.never(), progress=progress)
    told = {outcome.value: count for outcome, count in sorted(outcomes.items())}
    typer.echo(json.dumps(told) if as_json else f"{sum(told.values())} cases: {told}")


def _export_part(
    index: MilvusIndex,
    store: Store,
    erasures: dump.Erasures,
    part: Shard,
    progress: dump.Progress,
) -> Manifest | None:
    """Write the files that fall to a part; the part that finds all files there finishes.

    Raises
    ------
    Unavailable
        Cases were erased meanwhile: all parts have to run again.
    """
    plan = _plan(index, store, erasures, part)
    if isinstance(plan, Manifest):
        return plan
    mine = [number for number in range(plan.parts) if number % part.count == part.number]
    for done, number in enumerate(mine, 1):
        dump.write_part(index, store, plan, number, Deadline.never())
        progress(done, len(mine))
    if erasures(soon()) != plan.erasures:
        raise Unavailable(
            Reason.INDEX_UNAVAILABLE,
            "Cases were erased while the archive was exported.",
            remedy="Run all parts again: they go on with what was not touched.",
        )
    parts = []
    for number in range(plan.parts):
        there = dump.written_part(store, plan, number)
        if there is None:
            return None
        parts.append(there)
    # Of those that see it at once each writes the same manifest.
    return dump.finish(store, plan, parts)


def _plan(
    index: MilvusIndex, store: Store, erasures: dump.Erasures, part: Shard
) -> Plan | Manifest:
    """Return the plan that part 0 alone makes; or the manifest, where all is written already.

    The others wait for a plan that no erasure has overtaken. Part 0 may be done before they look.
    """
    deadline = Deadline.after(PLAN_S)
    while True:
        names = store.names()
        if MANIFEST in names:
            manifest = read_manifest(store)
            _require_of(manifest.plan, index)
            return manifest
        if part.number == 0:
            return dump.begin(index, store, erasures, Deadline.never())
        if PLAN in names and (plan := _read_plan(store)) is not None:
            _require_of(plan, index)
            if plan.erasures == erasures(soon()):
                return plan
        time.sleep(min(_GLANCE, deadline.remaining("part 0 planned the export")))


def _read_plan(store: Store) -> Plan | None:
    """Return the plan; ``None`` where somebody finished while we looked."""
    try:
        return read_plan(store)
    except InvalidInput:
        if PLAN in store.names():
            raise
        return None


def _require_of(plan: Plan, index: MilvusIndex) -> None:
    if plan.coding != replace(index.coding, shared=False):
        raise Conflict(
            Reason.DUMP_EXISTS,
            "The folder holds a dump of something else.",
            remedy="Choose an empty folder.",
            subject="out",
        )


def _tell(manifest: Manifest, *, as_json: bool) -> None:
    facts = {"rows": manifest.rows, "cases": manifest.cases, "began": manifest.plan.began}
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        typer.echo(f"{manifest.rows} cases in {len(manifest.parts)} files: {manifest.cases}")
