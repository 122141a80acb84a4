"""``dafh index``: every image of folders, manifests, archives and object stores into an archive.

Exit codes, beside those of every command: 0 every file is indexed, or left out for a reason that
lies in it, such as damage; 1 the same, but some files could not be read, or are not there, so run
it again; 75 it was told to stop, so run it again: it goes on where it was.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from dafh.errors import InvalidInput, Reason
from dafh.index.case import DEFAULT_ARCHIVE, DEFAULT_TENANT
from dafh.index.live import LiveArchive
from dafh_jobs.deployment import Servers, connected, soon
from dafh_jobs.ingesting import into
from dafh_jobs.job import Run, Task
from dafh_jobs.journal import Outcome
from dafh_jobs.options import AsJson, DataDir, Tenant
from dafh_jobs.preview import preview
from dafh_jobs.selection import Frames, Rule, Selection
from dafh_jobs.shard import Shard, chosen_shard
from dafh_jobs.sources import check, read_labels
from dafh_jobs.stopping import Stopping

#: Exit code where running again may help with some files.
SOME_UNREADABLE = 1

Sources = Annotated[
    list[str],
    typer.Argument(
        help="Folders, files, manifests (CSV, Parquet), zip and tar archives, DICOMDIRs, or "
        "addresses of an object store.",
        metavar="SOURCE...",
    ),
]
Labelled = Annotated[
    Path | None,
    typer.Option(
        help="CSV or Parquet with the columns file (relative to SOURCE), label, cancer_type.",
        exists=True,
        dir_okay=False,
    ),
]
Selected = Annotated[
    Path | None,
    typer.Option(help="TOML file of rules: which series, slices and frames (docs/jobs.md)."),
]
Part = Annotated[str, typer.Option(help="i/n: only part i of n, numbered from 0.")]
JournalFile = Annotated[
    Path | None,
    typer.Option(
        help="File that remembers what is done, on a disk of this machine.", dir_okay=False
    ),
]
NoJournal = Annotated[
    bool, typer.Option("--no-journal", help="Remember nothing: look at every file again.")
]
ReportFolder = Annotated[
    Path | None,
    typer.Option(help="Folder for the report: HTML, JSON, and a Parquet table of all files."),
]
ArchiveName = Annotated[str, typer.Option(help="Archive; made where there is none.")]


def index(
    source: Sources,
    labels: Labelled = None,
    selection: Selected = None,
    frames: Annotated[
        Frames | None, typer.Option(help="Frames of an instance; by default representative.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be taken.")
    ] = False,
    shard: Part = "",
    journal: JournalFile = None,
    no_journal: NoJournal = False,
    report: ReportFolder = None,
    tenant: Tenant = DEFAULT_TENANT,
    archive: ArchiveName = DEFAULT_ARCHIVE,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Index every image of SOURCE; what cannot be indexed is counted by reason and left out.

    It may be killed at any time: run the same command again, and it goes on where it was. Exit
    code 1: some files could not be read; 75: it was told to stop. Run it again then.
    """
    if selection and frames:
        raise InvalidInput(
            Reason.ARGUMENT_INVALID,
            "--frames does not count beside --selection.",
            remedy='Say it in the rules: frames = "all".',
            subject="frames",
        )
    console, stopping = Console(stderr=True), Stopping()
    with stopping.by_signals():
        check(source)
        one = Rule(frames=frames or Frames.REPRESENTATIVE)
        rules = Selection.read(selection) if selection else Selection([one])
        part = chosen_shard(shard)
        if dry_run:
            preview(source, rules, part, as_json=as_json)
            return
        with connected(tenant, data_dir) as servers:
            kept = journal or journal_path(servers, tenant, archive, part)
            task = Task(
                title="indexing",
                sources=tuple(source),
                tenant=tenant,
                archive=archive,
                labels=read_labels(labels),
                selection=rules,
                shard=part,
                journal=None if no_journal else kept,
                report=report,
            )
            facts = run(task, servers, stopping, console)
    tell(facts, console, as_json=as_json)
    raise typer.Exit(exit_code(facts, stopping))


def run(task: Task, servers: Servers, stopping: Stopping, console: Console) -> dict[str, Any]:
    """Index; return the facts of the report."""
    coding = servers.archives.open_or_create(servers.coding(task.tenant, task.archive), soon())
    archive = servers.archives.get(task.archive, soon())
    live = LiveArchive(servers.connection, task.tenant, task.archive)
    job = Run(task, servers, coding, archive.created, stopping, console)
    return job.through(into(live, servers.encoders, job.pace))


def journal_path(servers: Servers, tenant: str, archive: str, part: Shard) -> Path:
    """Return where the journal of a job is kept when nobody says."""
    name = f"{tenant}.{archive}.{part.number}-of-{part.count}.sqlite"
    return servers.deployment.data_dir / "jobs" / name


def tell(facts: dict[str, Any], console: Console, *, as_json: bool) -> None:
    """Print what a job did."""
    if as_json:
        typer.echo(json.dumps(facts))
        return
    console.print(f"indexed {facts['indexed']} images in {facts['seconds']:.1f} s")
    for name in ("outcomes", "skipped", "noticed"):
        words = {"outcomes": "stored", "skipped": "left out", "noticed": "files noticed"}
        for reason, count in facts[name].items():
            console.print(f"  {words[name]}: {reason} {count}")
    selected_out = facts["file_outcomes"].get(Outcome.NOT_SELECTED.value)
    if selected_out:
        console.print(f"  not selected: {selected_out} files")
    if facts["labels_of_no_file"]:
        console.print(f"  labels of no file: {facts['labels_of_no_file']} rows of the table")
    if facts["complete"]:
        console.print(f"the archive holds {facts['cases']} cases")
    else:
        console.print("stopped before the end: run the same command again, it goes on from here")


def exit_code(facts: dict[str, Any], stopping: Stopping) -> int:
    """Return what a scheduler is told."""
    if not facts["complete"]:
        return stopping.exit_code
    return SOME_UNREADABLE if facts["file_outcomes"].get(Outcome.UNREADABLE.value) else 0
