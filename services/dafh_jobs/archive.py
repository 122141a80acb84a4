"""``dafh archive``: look after archives: create, list, switch, fit, dump, load, erase, delete."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from dafh.codes import BITS, DEFAULT_BITS
from dafh.deadline import Deadline
from dafh.encoding.onnx import OnnxEncoder
from dafh.errors import InvalidInput, NotFound, Reason
from dafh.imaging.image import PatientKeyer
from dafh.index.archive import Archive
from dafh.index.archives import Archives
from dafh.index.case import DEFAULT_ARCHIVE, DEFAULT_TENANT, CaseId, Coding, CodingKey
from dafh.index.connection import Connection
from dafh.index.dump import dump as dump_cases
from dafh.index.dump import load as load_cases
from dafh.index.dump import require_loadable
from dafh.index.endpoint import Endpoint, endpoint
from dafh.index.erasure import Cases, Eraser, Patient, Selection, Study
from dafh.index.indexing import Indexing
from dafh.index.live import CaseWriter, LiveArchive, OneCoding
from dafh.index.manifest import Folder, read_manifest
from dafh.index.milvus import MilvusIndex
from dafh.index.progress import ErasureCount
from dafh.security.keys import load_key
from dafh.settings import (
    MilvusSettings,
    ModelSettings,
    PatientKeySettings,
    Tenancy,
    default_data_dir,
    load,
)
from dafh.stack import read_stack

#: Seconds that a question to the catalogue may take, and a change of it.
_SECONDS = 60.0

app = typer.Typer(
    help="Look after archives, in the running stack or in the Milvus of DAFH_MILVUS_URI.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="Name of the archive.")]
Tenant = Annotated[str, typer.Option(help="Whose archive.")]
DataDir = Annotated[Path | None, typer.Option(help="Data directory of the running stack.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
CodingOption = Annotated[
    str, typer.Option("--coding", help="Key of the coding, as `show` tells; the live one if not.")
]


def _soon() -> Deadline:
    return Deadline.after(_SECONDS)


@dataclass(frozen=True, slots=True)
class _Opened:
    connection: Connection
    archives: Archives


def _key_file(data_dir: Path | None) -> Path:
    if _milvus_is_named():
        return load(PatientKeySettings).patient_key_file
    return read_stack(data_dir or default_data_dir()).patient_key_file


def _milvus_is_named() -> bool:
    return "milvus_uri" in load(MilvusSettings).model_fields_set


@contextmanager
def _opened(tenant: str, data_dir: Path | None) -> Iterator[_Opened]:
    settings = load(MilvusSettings)
    where = (
        endpoint(settings, tenant)
        if _milvus_is_named()
        else Endpoint(read_stack(data_dir or default_data_dir()).milvus_uri)
    )
    connection = Connection(where, _soon())
    try:
        shared = settings.milvus_tenancy is Tenancy.SHARED
        yield _Opened(connection, Archives(connection, tenant, shared=shared))
    finally:
        connection.close()


@app.command()
def create(
    name: Name,
    bits: Annotated[int, typer.Option(help=f"Code length, one of {BITS}.")] = DEFAULT_BITS,
    model: Annotated[int | None, typer.Option(help="Model version that codes it.")] = None,
    tenant: Tenant = DEFAULT_TENANT,
    data_dir: DataDir = None,
) -> None:
    """Create an empty archive; one that is coded so already is no fault."""
    settings = load(ModelSettings)
    version = settings.model_version if model is None else model
    described = OnnxEncoder(settings.model_repository, version).model
    keyer = PatientKeyer(load_key(_key_file(data_dir)), tenant)
    coding = Coding(tenant, name, described.hash, described.version, bits, keyer.key_id)
    with _opened(tenant, data_dir) as opened:
        made = opened.archives.create(coding, _soon())
    typer.echo(f"{name} is coded by model {_model(made.live)} at {made.live.bits} bits.")


@app.command("list")
def list_archives(
    tenant: Tenant = DEFAULT_TENANT, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """List the archives of a tenant."""
    with _opened(tenant, data_dir) as opened:
        found = opened.archives.all(_soon())
    if as_json:
        typer.echo(json.dumps([_facts(archive) for archive in found]))
        return
    key = Column("live coding", no_wrap=True)
    table = Table(Column("archive", no_wrap=True), key, "model", "bits", "codings", "made")
    for archive in found:
        live = archive.live
        table.add_row(
            archive.name,
            live.key,
            _model(live),
            str(live.bits),
            str(len(archive.codings)),
            _moment(archive.created),
        )
    Console().print(table)


@app.command()
def show(
    name: Name = DEFAULT_ARCHIVE,
    tenant: Tenant = DEFAULT_TENANT,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show an archive: its codings, how many cases each holds and how it is searched."""
    with _opened(tenant, data_dir) as opened:
        archive = opened.archives.get(name, _soon())
        facts = _facts(archive)
        for one, told in zip(archive.codings, facts["codings"], strict=True):
            indexing = Indexing(opened.connection, one.coding)
            indexing.make_searchable(_soon())
            told["cases"] = opened.archives.rows(one.coding).count(_soon())
            index = indexing.read(_soon())
            told["searched"] = (
                f"{index.nprobe} of {index.nlist} lists" if index and index.nlist else "exactly"
            )
    if as_json:
        typer.echo(json.dumps(facts))
        return
    # Keys are typed again: they are never cut.
    key = Column("coding", no_wrap=True)
    table = Table(key, "live", "model", "bits", "cases", "searched", "made")
    for one, told in zip(archive.codings, facts["codings"], strict=True):
        table.add_row(
            one.coding.key,
            "yes" if one.coding == archive.live else "",
            _model(one.coding),
            str(one.coding.bits),
            str(told["cases"]),
            told["searched"],
            _moment(one.created),
        )
    Console().print(table)


@app.command()
def switch(
    name: Name,
    coding: Annotated[str, typer.Argument(help="Key of the coding that is to be live.")],
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Also if it lacks cases of the live one.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it lacks.")] = False,
    tenant: Tenant = DEFAULT_TENANT,
    data_dir: DataDir = None,
) -> None:
    """Make another coding of an archive the live one, at once; or the former one again."""
    with _opened(tenant, data_dir) as opened:
        done = opened.archives.switch(
            name,
            CodingKey(coding),
            Deadline.never(),
            allow_missing_cases=allow_missing,
            validate_only=dry_run,
        )
    for case in done.missing.first:
        typer.echo(case)
    verb = "would lack" if dry_run else "lacks"
    live = done.archive.live.key
    typer.echo(f"{coding} {verb} {done.missing.count} cases; {live} is live.", err=True)


@app.command("drop-coding")
def drop_coding(
    name: Name,
    coding: Annotated[str, typer.Argument(help="Key of the coding.")],
    yes: Yes = False,
    tenant: Tenant = DEFAULT_TENANT,
    data_dir: DataDir = None,
) -> None:
    """Remove a coding that is not live, with its cases. A minute after a switch, not sooner."""
    with _opened(tenant, data_dir) as opened:
        etag = opened.archives.get(name, _soon()).etag
        _ask(yes, f"Remove coding {coding} of archive {name}?")
        opened.archives.drop_coding(name, CodingKey(coding), Deadline.never(), etag=etag)


@app.command()
def delete(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Also if it holds cases.")] = False,
    yes: Yes = False,
    tenant: Tenant = DEFAULT_TENANT,
    data_dir: DataDir = None,
) -> None:
    """Delete an archive with all its codings."""
    with _opened(tenant, data_dir) as opened:
        etag = opened.archives.get(name, _soon()).etag
        _ask(yes, f"Delete archive {name}?")
        opened.archives.delete(name, Deadline.never(), force=force, etag=etag)


@app.command()
def fit(
    name: Name = DEFAULT_ARCHIVE,
    coding: CodingOption = "",
    tenant: Tenant = DEFAULT_TENANT,
    data_dir: DataDir = None,
) -> None:
    """Give an archive the index that fits its size, and measure how much of it to search.

    Run it when an archive has been filled, and when it has grown much. Where another index has to
    be made, the archive answers nothing for seconds to minutes, and says that it will.
    """
    with _opened(tenant, data_dir) as opened:
        chosen = _chosen(opened.archives.get(name, _soon()), coding)
        index = Indexing(opened.connection, chosen).fit(Deadline.never())
    how = f"{index.nprobe} of {index.nlist} lists" if index.nlist else "exactly"
    typer.echo(f"{name} is searched {how}.")


@app.command()
def dump(
    name: Name,
    out: Annotated[
        Path, typer.Option(help="Folder that the dump is written into.", file_okay=False)
    ],
    coding: CodingOption = "",
    tenant: Tenant = DEFAULT_TENANT,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Write an archive into Parquet files; the same command goes on where one was cut off.

    The files hold UIDs and pseudonyms of patients: keep them as safe as the archive.
    """
    with _opened(tenant, data_dir) as opened, _progress("dumping") as progress:
        chosen = _chosen(opened.archives.get(name, _soon()), coding)
        Indexing(opened.connection, chosen).make_searchable(_soon())
        count = ErasureCount(opened.archives.ledger, tenant, name)
        manifest = dump_cases(
            MilvusIndex(opened.connection, chosen),
            Folder(out),
            count.read,
            Deadline.never(),
            progress=progress,
        )
    if as_json:
        facts = {"rows": manifest.rows, "cases": manifest.cases, "began": manifest.plan.began}
        typer.echo(json.dumps(facts))
    else:
        typer.echo(f"{manifest.rows} cases in {len(manifest.parts)} files: {manifest.cases}")


@app.command("load")
def load_dump(
    source: Annotated[Path, typer.Argument(help="Folder of a dump.", exists=True, file_okay=False)],
    name: Annotated[
        str, typer.Option("--archive", help="Archive to load into; by default that of the dump.")
    ] = "",
    tenant: Tenant = DEFAULT_TENANT,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Load a dump into an archive, which is made where there is none.

    What is there already stays. The same command goes on where one was cut off. A case that was
    erased after the dump was made comes back with it.
    """
    store = Folder(source)
    manifest = read_manifest(store)
    coding = manifest.plan.coding
    wanted = replace(coding, tenant=tenant, archive=name or coding.archive)
    require_loadable(manifest, wanted)
    with _opened(tenant, data_dir) as opened, _progress("loading") as progress:
        wanted = opened.archives.open_or_create(wanted, _soon())
        writer = _writer(opened, wanted)
        outcomes = load_cases(store, writer, wanted, Deadline.never(), progress=progress)
    told = {outcome.value: count for outcome, count in sorted(outcomes.items())}
    typer.echo(json.dumps(told) if as_json else f"{sum(told.values())} cases: {told}")


@app.command()
def erase(
    name: Name,
    case: Annotated[list[str] | None, typer.Option(help="Key of a case; may be repeated.")] = None,
    study: Annotated[str, typer.Option(help="Study Instance UID.")] = "",
    patient_of: Annotated[str, typer.Option(help="Key of a case: all cases of its patient.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    yes: Yes = False,
    tenant: Tenant = DEFAULT_TENANT,
    data_dir: DataDir = None,
) -> None:
    """Erase cases by key, study or patient: from every coding and from later dumps.

    A patient is named by one of their cases, so that no name or number of theirs is typed.
    """
    with _opened(tenant, data_dir) as opened:
        archive = opened.archives.get(name, _soon())
        selection = _selection(opened, archive, case or [], study, patient_of)
        eraser = Eraser(opened.connection, tenant, name)
        count = eraser.count(selection, Deadline.never())
        if not dry_run:
            _ask(yes, f"Erase {count} cases of archive {name}?")
            count = eraser.erase(selection, Deadline.never())
    typer.echo(f"{count} cases {'would be ' if dry_run else ''}erased.")


def _selection(
    opened: _Opened, archive: Archive, cases: list[str], study: str, patient_of: str
) -> Selection:
    if sum(map(bool, (cases, study, patient_of))) != 1:
        raise InvalidInput(
            Reason.ARGUMENT_INVALID, "Name one of --case, --study and --patient-of.", subject="case"
        )
    if cases:
        return Cases(tuple(map(CaseId, cases)))
    if study:
        return Study(study)
    found = opened.archives.rows(archive.live).lookup([CaseId(patient_of)], _soon(), strong=True)
    if not found:
        raise NotFound(Reason.CASE_NOT_FOUND, "There is no such case.", subject="patient_of")
    (one,) = found.values()
    if not one.patient_key:
        raise InvalidInput(
            Reason.ARGUMENT_INVALID,
            "The case's patient is not known.",
            remedy="Erase by study or by case.",
            subject="patient_of",
        )
    return Patient(one.patient_key, archive.live.key_id)


def _writer(opened: _Opened, coding: Coding) -> CaseWriter:
    """Return what writes into a coding: where it is live, also into one that is about to be."""
    if opened.archives.get(coding.archive, _soon()).live == coding:
        return LiveArchive(opened.connection, coding.tenant, coding.archive)
    return OneCoding(MilvusIndex(opened.connection, coding))


def _chosen(archive: Archive, key: str) -> Coding:
    if not key:
        return archive.live
    found = archive.find(CodingKey(key))
    if found is None:
        raise NotFound(
            Reason.CODING_NOT_FOUND,
            "The archive has no such coding.",
            remedy="`dafh archive show` lists those that it has.",
            subject="coding",
        )
    return found


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _ask(yes: bool, question: str) -> None:
    if not yes:
        typer.confirm(question, abort=True)


def _facts(archive: Archive) -> dict[str, Any]:
    return {
        "archive": archive.name,
        "created": archive.created,
        "etag": archive.etag,
        "switching_to": archive.switching_to.key if archive.switching_to else None,
        "codings": [
            {
                "coding": one.coding.key,
                "live": one.coding == archive.live,
                "model_version": one.coding.model_version,
                "model_hash": one.coding.model_hash,
                "bits": one.coding.bits,
                "created": one.created,
            }
            for one in archive.codings
        ],
    }


def _model(coding: Coding) -> str:
    return f"{coding.model_version} ({coding.model_hash[:12]})"


def _moment(microseconds: int) -> str:
    if not microseconds:
        return ""
    return datetime.fromtimestamp(microseconds / 1e6, UTC).strftime("%Y-%m-%d %H:%M")
