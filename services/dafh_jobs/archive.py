"""``dafh archive``: look after archives: create, list, switch, fit, dump, load, erase, delete."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from dafh.codes import BITS, DEFAULT_BITS
from dafh.deadline import Deadline
from dafh.encoding.onnx import OnnxEncoder
from dafh.errors import InvalidInput, NotFound, Reason
from dafh.imaging.image import PatientKeyer
from dafh.index.archive import Archive
from dafh.index.case import DEFAULT_ARCHIVE, DEFAULT_TENANT, CaseId, Coding, CodingKey
from dafh.index.erasure import Cases, Eraser, Patient, Selection, Study
from dafh.index.indexing import Indexing
from dafh.security.keys import load_key
from dafh.settings import ModelSettings, load
from dafh_jobs import codes
from dafh_jobs.deployment import Opened, chosen_coding, opened, patient_key_file, soon
from dafh_jobs.options import AsJson, CodingOption, DataDir, Tenant

app = typer.Typer(
    help="Look after archives, in the running stack or in the Milvus of DAFH_MILVUS_URI.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="Name of the archive.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]


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
    keyer = PatientKeyer(load_key(patient_key_file(data_dir)), tenant)
    coding = Coding(tenant, name, described.hash, described.version, bits, keyer.key_id)
    with opened(tenant, data_dir) as milvus:
        made = milvus.archives.create(coding, soon())
    typer.echo(f"{name} is coded by model {_model(made.live)} at {made.live.bits} bits.")


@app.command("list")
def list_archives(
    tenant: Tenant = DEFAULT_TENANT, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """List the archives of a tenant."""
    with opened(tenant, data_dir) as milvus:
        found = milvus.archives.all(soon())
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
    with opened(tenant, data_dir) as milvus:
        archive = milvus.archives.get(name, soon())
        facts = _facts(archive)
        for one, told in zip(archive.codings, facts["codings"], strict=True):
            indexing = Indexing(milvus.connection, one.coding)
            indexing.make_searchable(soon())
            told["cases"] = milvus.archives.rows(one.coding).count(soon())
            index = indexing.read(soon())
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
    with opened(tenant, data_dir) as milvus:
        done = milvus.archives.switch(
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
    with opened(tenant, data_dir) as milvus:
        etag = milvus.archives.get(name, soon()).etag
        _ask(yes, f"Remove coding {coding} of archive {name}?")
        milvus.archives.drop_coding(name, CodingKey(coding), Deadline.never(), etag=etag)


@app.command()
def delete(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Also if it holds cases.")] = False,
    yes: Yes = False,
    tenant: Tenant = DEFAULT_TENANT,
    data_dir: DataDir = None,
) -> None:
    """Delete an archive with all its codings."""
    with opened(tenant, data_dir) as milvus:
        etag = milvus.archives.get(name, soon()).etag
        _ask(yes, f"Delete archive {name}?")
        milvus.archives.delete(name, Deadline.never(), force=force, etag=etag)


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
    with opened(tenant, data_dir) as milvus:
        chosen = chosen_coding(milvus.archives.get(name, soon()), coding)
        index = Indexing(milvus.connection, chosen).fit(Deadline.never())
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
    codes.export_codes(name, str(out), coding, "", tenant, data_dir, as_json)


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
    codes.import_codes(str(source), name, tenant, data_dir, as_json)


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
    with opened(tenant, data_dir) as milvus:
        archive = milvus.archives.get(name, soon())
        selection = _selection(milvus, archive, case or [], study, patient_of)
        eraser = Eraser(milvus.connection, tenant, name)
        count = eraser.count(selection, Deadline.never())
        if not dry_run:
            _ask(yes, f"Erase {count} cases of archive {name}?")
            count = eraser.erase(selection, Deadline.never())
    typer.echo(f"{count} cases {'would be ' if dry_run else ''}erased.")


def _selection(
    milvus: Opened, archive: Archive, cases: list[str], study: str, patient_of: str
) -> Selection:
    if sum(map(bool, (cases, study, patient_of))) != 1:
        raise InvalidInput(
            Reason.ARGUMENT_INVALID, "Name one of --case, --study and --patient-of.", subject="case"
        )
    if cases:
        return Cases(tuple(map(CaseId, cases)))
    if study:
        return Study(study)
    found = milvus.archives.rows(archive.live).lookup([CaseId(patient_of)], soon(), strong=True)
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
