"""What a job did: counts for programs, a page for people, and a table of all files.

A file is named by the SHA-256 of its bytes. No name, no path and nothing of a patient is in it but
UIDs, which name cases anyway.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import dropwhile, groupby, islice, takewhile
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer

from dafh.errors import InvalidInput, Reason
from dafh.index import port
from dafh.writing import written
from dafh_jobs.journal import Outcome, Record
from dafh_jobs.options import AsJson
from dafh_jobs.page import draw_page

FACTS, TABLE, PAGE = "report.json", "outcomes.parquet", "report.html"
#: Where a file says which modality, and where it does not.
UNKNOWN = "unknown"
_ROWS = 8_192
#: What the reports of all parts of a job have alike, and what is made one of theirs.
_SAME = ("tenant", "archive", "model_version", "model_hash")
_MERGED = frozenset({*_SAME, "shard", "complete", "seconds", "images_per_second"})

SCHEMA = pa.schema(
    [
        ("sha256", pa.string()),
        ("bytes", pa.int64()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("sop_instance_uid", pa.string()),
        ("modality", pa.string()),
        ("transfer_syntax", pa.string()),
        *((outcome.value, pa.int64()) for outcome in port.Outcome),
        ("seconds", pa.float64()),
        # The same bytes as another file of the source; as one that is not there any more.
        ("copy", pa.bool_()),
        ("moved", pa.bool_()),
        # The file at this place had other bytes before.
        ("changed", pa.bool_()),
    ]
)
Row = dict[str, Any]


@dataclass(slots=True)
class Tally:
    """Counts of a job."""

    #: `Outcome` -> files, `Reason` -> files, `dafh.index.port.Outcome` -> images.
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)
    #: "copy", "moved", "changed" -> files.
    noticed: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    #: Modality -> files, images, left_out, bytes.
    modalities: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Count a file."""
        outcome = Outcome(row["outcome"])
        self.outcomes[outcome.value] += 1
        if row["reason"]:
            self.reasons[row["reason"]] += 1
        images = {one.value: row[one.value] for one in port.Outcome if row[one.value]}
        self.images.update(images)
        self.noticed.update(name for name in ("copy", "moved", "changed") if row[name])
        self.bytes += row["bytes"]
        of = self.modalities.setdefault(row["modality"] or UNKNOWN, Counter())
        of["files"] += 1
        of["images"] += sum(images.values())
        of["left_out"] += outcome.left_out
        of["bytes"] += row["bytes"]

    def facts(self) -> dict[str, Any]:
        """Return the counts for JSON."""
        return {
            "files": sum(self.outcomes.values()),
            "bytes": self.bytes,
            "indexed": sum(self.images.values()),
            "outcomes": dict(sorted(self.images.items())),
            "skipped": dict(self.reasons.most_common()),
            "file_outcomes": dict(self.outcomes.most_common()),
            "noticed": dict(sorted(self.noticed.items())),
            "modalities": {name: dict(self.modalities[name]) for name in sorted(self.modalities)},
        }


def rows_of(records: Iterable[Record]) -> Iterator[Row]:
    """Yield a row for each file; `records` are in order of their bytes.

    Of files with the same bytes and labels one counts; the others are its copies, whether they were
    met before it was done or after.
    """
    for sha256, group in groupby(records, key=attrgetter("sha256")):
        alike = list(group)
        # The last of each labels: no twin, where there is one that is none, and what brought most.
        order = sorted(alike, key=lambda one: (not one.twin, one.added, one.frames))
        # Of what could not be read it is not known what it is like.
        counting = {one.labels: one for one in order} if sha256 else {}
        for record in alike:
            copy = counting.get(record.labels, record) is not record
            yield {
                "sha256": record.sha256,
                "bytes": record.bytes,
                "outcome": record.outcome.value,
                "reason": record.reason,
                "sop_instance_uid": record.sop_instance_uid,
                "modality": record.modality,
                "transfer_syntax": record.transfer_syntax,
                **{one.value: 0 if copy else getattr(record, one.value) for one in port.Outcome},
                "seconds": record.seconds,
                "copy": copy,
                "moved": record.twin and not copy,
                "changed": record.changed,
            }


def tallied(rows: Iterable[Row], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `write_report` writes for programs; write nothing."""
    tally = Tally()
    for row in rows:
        tally.add(row)
    return {**about, **tally.facts()}


def write_report(folder: Path, rows: Iterable[Row], about: Mapping[str, Any]) -> dict[str, Any]:
    """Write the three files of a report; return what stands in the first.

    Parameters
    ----------
    folder
        Made where it is missing; its owner alone may read it.
    rows
        In order of SHA-256.
    about
        What is known of the job beside its files: archive, model, seconds, ….

    Raises
    ------
    Misconfigured
        The folder cannot be written.
    """
    tally, stream = Tally(), iter(rows)
    with (
        written(folder / TABLE) as sink,
        pq.ParquetWriter(sink, SCHEMA, compression="zstd") as table,
    ):
        while batch := list(islice(stream, _ROWS)):
            for row in batch:
                tally.add(row)
            table.write_table(pa.Table.from_pylist(batch, SCHEMA))
    facts = {**about, **tally.facts()}
    with written(folder / FACTS) as out:
        out.write(f"{json.dumps(facts, indent=1)}\n".encode())
    with written(folder / PAGE) as out:
        out.write(draw_page(facts).encode())
    return facts


def merge_reports(parts: Sequence[Path], folder: Path) -> dict[str, Any]:
    """Write one report of those of all shards of a job.

    Raises
    ------
    InvalidInput
        One is missing, of another job, or there twice.
    """
    told = [_facts(part) for part in parts]
    _require_one_job(told)
    about = {
        **{name: told[0][name] for name in _SAME},
        "shard": "0/1",
        "complete": all(one["complete"] for one in told),
        # They ran beside each other.
        "seconds": max(one["seconds"] for one in told),
        "images_per_second": round(sum(one["images_per_second"] for one in told), 2),
        "merged": len(told),
    }
    return write_report(folder, heapq.merge(*_tables(parts), key=itemgetter("sha256")), about)


def _tables(parts: Sequence[Path]) -> list[Iterator[Row]]:
    """Return the rows of each part, in order.

    Whose a file is that cannot be read is not known: every part tells it. It is taken from the part
    that could read fewest.
    """
    unread = [sum(1 for _ in takewhile(_is_unread, _rows(part))) for part in parts]
    worst = unread.index(max(unread))
    return [
        _rows(part) if number == worst else dropwhile(_is_unread, _rows(part))
        for number, part in enumerate(parts)
    ]


def _is_unread(row: Row) -> bool:
    return not row["sha256"]


def _require_one_job(told: Sequence[Mapping[str, Any]]) -> None:
    jobs = {(one["tenant"], one["archive"], one["model_hash"]) for one in told}
    shards = sorted(one["shard"] for one in told)
    if len(jobs) != 1 or shards != sorted(f"{number}/{len(told)}" for number in range(len(told))):
        raise InvalidInput(
            Reason.ARGUMENT_INVALID,
            f"The reports are not those of all shards of one job: {', '.join(shards)}.",
            remedy="Name the report of each shard once.",
            subject="report",
        )


def _facts(part: Path) -> dict[str, Any]:
    try:
        facts = json.loads((part / FACTS).read_bytes())
    except (OSError, ValueError):
        raise _no_report() from None
    if not (isinstance(facts, dict) and facts.keys() >= _MERGED):
        raise _no_report()
    return facts


def _rows(part: Path) -> Iterator[Row]:
    try:
        with pq.ParquetFile(part / TABLE) as table:
            if table.schema_arrow != SCHEMA:
                raise _no_report()
            for batch in table.iter_batches(_ROWS):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException):
        raise _no_report() from None


def _no_report() -> InvalidInput:
    return InvalidInput(
        Reason.ARGUMENT_INVALID,
        "A folder holds no report of a job, or a damaged one.",
        remedy=f"Name folders with {FACTS} and {TABLE}.",
        subject="report",
    )


def merge(
    parts: Annotated[
        list[Path],
        typer.Argument(help="Folders of reports, one of each shard.", metavar="REPORT..."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the one report.", file_okay=False)],
    as_json: AsJson = False,
) -> None:
    """Make one report of those of all shards of a job."""
    facts = merge_reports(parts, out)
    typer.echo(json.dumps(facts) if as_json else f"{facts['indexed']} images: {out / PAGE}")
