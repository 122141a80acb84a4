"""``dafh reindex``: an archive under another model, from the pixels, while it is searched.

The source is gone through once: what the archive has of it is coded by the new model, into a file.
Then a second coding is filled from that file (`dafh.index.fill`), beside the live one. Whatever
was erased meanwhile stays erased, and what the source lacks is missing and told.
"""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import numpy as np
import typer
from rich.console import Console

from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.errors import Misconfigured, Reason
from dafh.index.case import DEFAULT_TENANT, Case, CaseId, Coding, CodingKey, case_id
from dafh.index.fill import fill
from dafh.index.port import Outcome
from dafh.index.rows import Rows
from dafh.ingest.ingest import Item
from dafh_jobs.deployment import Servers, connected, soon
from dafh_jobs.index import JournalFile, ReportFolder, Selected, exit_code, tell
from dafh_jobs.ingesting import TimedEncoder
from dafh_jobs.job import Run, Task
from dafh_jobs.options import AsJson, DataDir, Tenant
from dafh_jobs.pace import Pace, Stage
from dafh_jobs.selection import Frames, Rule, Selection
from dafh_jobs.sources import check
from dafh_jobs.stopping import Abandoned, Stopping
from dafh_jobs.storing import Store


def reindex(
    archive: Annotated[str, typer.Argument(help="Name of the archive.")],
    model: Annotated[int, typer.Option(help="Model version that is to code it; Triton serves it.")],
    source: Annotated[
        list[str], typer.Option("--from", help="Where its images are; may be repeated.")
    ],
    selection: Selected = None,
    switch: Annotated[
        bool, typer.Option("--switch", help="Make the new coding the live one when it is filled.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Switch also if cases have no pixels.")
    ] = False,
    journal: JournalFile = None,
    report: ReportFolder = None,
    tenant: Tenant = DEFAULT_TENANT,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Code an archive by another model, from its images, while it is searched and written to.

    Prints the cases without images. It may be killed at any time: run the same command again. The
    way back is `dafh archive switch`.
    """
    console, stopping = Console(stderr=True), Stopping()
    with stopping.by_signals():
        check(source)
        # Every frame: which of them the archive has is looked up.
        rules = Selection.read(selection) if selection else Selection([Rule(frames=Frames.ALL)])
        with connected(tenant, data_dir) as servers:
            live = servers.archives.get(archive, soon()).live
            described = servers.encoders.describe(model)
            target = replace(live, model_hash=described.hash, model_version=described.version)
            servers.archives.add_coding(target, soon())
            jobs = servers.deployment.data_dir / "jobs"
            kept = journal or jobs / f"{tenant}.{archive}.reindex.sqlite"
            task = Task(
                title="reindexing",
                sources=tuple(source),
                tenant=tenant,
                archive=archive,
                selection=rules,
                journal=kept,
                report=report,
            )
            with Codes(kept.with_suffix(".codes")) as codes:
                # Codes that are gone are made again.
                run = Run(task, servers, target, codes.name, stopping, console)
                facts = run.through(_into(codes, servers, live, target, run.pace))
                if facts["complete"]:
                    facts |= _filled(run, codes, switch, allow_missing)
    tell(facts, console, as_json=as_json)
    if facts["complete"] and not as_json:
        console.print(
            f"coding {target.key}: {facts['stored']} cases stored, {facts['missing']} missing; "
            f"{facts['live']} is live, before it was {live.key}"
        )
    raise typer.Exit(exit_code(facts, stopping))


class Codes:
    """Codes of a new model, by case and content, in a file.

    Parameters
    ----------
    path
        Made where it is missing, mode 0600. It holds keys of cases and their codes.

    Raises
    ------
    Misconfigured
        It cannot be written, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(0o600)
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            execute = self._database.execute
            execute("PRAGMA journal_mode = WAL")
            # On disk before the journal says that they are.
            execute("PRAGMA synchronous = FULL")
            execute(
                "CREATE TABLE IF NOT EXISTS code (coding TEXT, id TEXT, content TEXT, packed BLOB,"
                " PRIMARY KEY (coding, id, content)) WITHOUT ROWID"
            )
            execute("CREATE TABLE IF NOT EXISTS name (text TEXT)")
            if execute("SELECT count(*) FROM name").fetchone() == (0,):
                execute("INSERT INTO name VALUES (?)", (uuid.uuid4().hex,))
            (self.name,) = execute("SELECT text FROM name").fetchone()
        except (OSError, sqlite3.Error):
            raise _unusable() from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._database.close()

    def add(self, coding: Coding, codes: Mapping[tuple[CaseId, str], HashCode]) -> None:
        """Keep codes; on return they are on disk."""
        rows = [(coding.key, *key, code.packed) for key, code in codes.items()]
        try:
            with self._lock, self._database:
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany("INSERT OR REPLACE INTO code VALUES (?, ?, ?, ?)", rows)
        except sqlite3.Error:
            raise _unusable() from None

    def of(self, coding: Coding, cases: Sequence[Case]) -> dict[CaseId, HashCode]:
        """Return the codes of those of the cases whose pixels were met."""
        found = {}
        which = "SELECT packed FROM code WHERE coding = ? AND id = ? AND content = ?"
        try:
            for case in cases:
                key = (coding.key, case.id, case.content_sha256)
                with self._lock:
                    row = self._database.execute(which, key).fetchone()
                if row is not None:
                    found[case.id] = HashCode(row[0])
        except sqlite3.Error:
            raise _unusable() from None
        return found


def _unusable() -> Misconfigured:
    return Misconfigured(
        Reason.DISK_FULL,
        "The file of new codes beside the journal cannot be written, or is damaged.",
        remedy="Make room, or name another --journal; then run the same command again.",
        subject="journal",
    )


def _into(codes: Codes, servers: Servers, live: Coding, target: Coding, pace: Pace) -> Store:
    """Return what keeps the codes of images that the archive has.

    What it says of an image: `ADDED` where it was coded, `UNCHANGED` where the archive does not
    have it, `PIXEL_CONFLICT` where it has other pixels of it.
    """
    rows = Rows(servers.connection, live)

    def store(items: Sequence[Item], deadline: Deadline) -> list[Outcome]:
        ids = [_key(item, live) for item in items]
        with pace.busy(Stage.INDEX):
            stored = rows.lookup(list(dict.fromkeys(ids)), deadline)
        outcomes = [_outcome(item, stored.get(key)) for item, key in zip(items, ids, strict=True)]
        wanted = [place for place, told in enumerate(outcomes) if told is Outcome.ADDED]
        if wanted:
            encoder = TimedEncoder(servers.encoders.of(target, deadline), pace)
            pixels = np.stack([items[place].image.pixels for place in wanted])
            outputs = encoder.encode(pixels, deadline).hashes[target.bits]
            codes.add(
                target,
                {
                    (ids[place], items[place].image.content_sha256): HashCode.of(output)
                    for place, output in zip(wanted, outputs, strict=True)
                },
            )
        return outcomes

    return store


def _key(item: Item, coding: Coding) -> CaseId:
    uid = item.image.metadata.sop_instance_uid
    return case_id(coding.tenant, coding.archive, uid, item.image.frame)


def _outcome(item: Item, case: Case | None) -> Outcome:
    if case is None:
        return Outcome.UNCHANGED
    same = case.content_sha256 == item.image.content_sha256
    return Outcome.ADDED if same else Outcome.PIXEL_CONFLICT


def _filled(run: Run, codes: Codes, switch: bool, allow_missing: bool) -> dict[str, Any]:
    """Fill the coding, and make it the live one if that is wanted; return what to tell of it."""
    archives, task, target = run.servers.archives, run.task, run.coding
    never, key = Deadline.never(), CodingKey(target.key)

    def recode(cases: Sequence[Case]) -> Mapping[CaseId, HashCode]:
        if run.stopping.event.is_set():
            raise Abandoned
        return codes.of(target, cases)

    try:
        filled = fill(run.servers.connection, task.tenant, task.archive, key, recode, never)
        missing = filled.missing
        for case in missing.first:
            typer.echo(case, err=True)
        if missing.count > len(missing.first):
            typer.echo(f"and {missing.count - len(missing.first)} more", err=True)
        if run.stopping.event.is_set():
            raise Abandoned
    except Abandoned:
        return {"complete": False}
    if switch:
        archives.switch(task.archive, target.key, never, allow_missing_cases=allow_missing)
    return {
        "coding": target.key,
        "stored": filled.stored,
        "missing": missing.count,
        "first_missing": list(missing.first),
        "live": archives.get(task.archive, soon()).live.key,
    }
