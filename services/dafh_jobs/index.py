"""``dafh index``: every image below a path into the archive, in batches."""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from dafh.deadline import Deadline
from dafh.encoding.triton import TritonEncoder
from dafh.errors import InvalidInput, Reason
from dafh.imaging.decode import REPRESENTATIVE
from dafh.imaging.image import Image, PatientKeyer
from dafh.imaging.pool import DecoderPool
from dafh.index.case import DEFAULT_ARCHIVE, DEFAULT_TENANT, Coding
from dafh.index.milvus import MilvusIndex
from dafh.ingest.ingest import Ingester, Item
from dafh.security.keys import load_key
from dafh.settings import DecodeSettings, default_data_dir, load
from dafh.stack import Stack, read_stack

BATCH = 64
#: Seconds that one batch may take in Triton and Milvus.
BATCH_SECONDS = 60.0


@dataclass(slots=True)
class Report:
    """What a run of the job did."""

    #: Outcome of the index -> images.
    stored: Counter[str]
    #: Reason of the refusal -> files.
    skipped: Counter[str]
    seconds: float = 0.0

    def as_json(self) -> str:
        """Return the report as one line of JSON."""
        return json.dumps(
            {
                "indexed": self.stored.total(),
                "outcomes": dict(self.stored),
                "skipped": dict(self.skipped),
                "seconds": round(self.seconds, 3),
            }
        )


@dataclass(frozen=True, slots=True)
class Labels:
    """What a table says of a file."""

    label: str = ""
    cancer_type: str = ""


def index(
    path: Annotated[Path, typer.Argument(help="A file, or a folder to walk.", exists=True)],
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV with the columns file (relative to PATH), label, cancer_type."),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Data directory of the running stack.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Index every image below PATH into the running stack's archive.

    Files that are no image, or one that cannot be decoded, are counted by reason and left out.
    """
    stack = read_stack(data_dir or default_data_dir())
    console = Console(stderr=True)
    report = run(path, read_labels(labels), stack, console)
    if as_json:
        typer.echo(report.as_json())
        return
    console.print(f"indexed {report.stored.total()} images in {report.seconds:.1f} s")
    for name, counts in (("stored", report.stored), ("left out", report.skipped)):
        for reason, count in counts.most_common():
            console.print(f"  {name}: {reason} {count}")


def run(path: Path, labels: dict[str, Labels], stack: Stack, console: Console) -> Report:
    """Index the files below `path`; the report counts what became of each."""
    files = (
        sorted(found for found in path.rglob("*") if found.is_file()) if path.is_dir() else [path]
    )
    root = path if path.is_dir() else path.parent
    report, started = Report(Counter(), Counter()), time.monotonic()
    keyer = PatientKeyer(load_key(stack.patient_key_file), DEFAULT_TENANT)
    encoder = TritonEncoder(stack.triton.address, stack.model_version)
    deadline = Deadline.after(BATCH_SECONDS)
    model = encoder.describe(deadline)
    coding = Coding(
        tenant=DEFAULT_TENANT,
        archive=DEFAULT_ARCHIVE,
        model_hash=model.hash,
        model_version=model.version,
        bits=stack.bits,
        key_id=keyer.key_id,
    )
    case_index = MilvusIndex.open_or_create(stack.milvus_uri, coding, deadline)
    ingester = Ingester.alone(encoder, case_index)
    settings = load(DecodeSettings)
    # The threads only read files and wait: each has a decoder process to itself.
    readers = ThreadPoolExecutor(settings.decode_workers)
    decoders = DecoderPool(workers=settings.decode_workers, keyer=keyer, policy=settings.policy)
    most = settings.limits.request_bytes
    try:
        decode = partial(_decode, decoders=decoders, side=model.side, most=most)
        progress = track(
            zip(files, readers.map(decode, files), strict=True),
            total=len(files),
            description="indexing",
            console=console,
            disable=not console.is_terminal,
        )
        for batch in _batches(progress, root, labels, report):
            for stored in ingester.ingest(batch, Deadline.after(BATCH_SECONDS)):
                report.stored[stored.outcome.value] += 1
    finally:
        # A failure must not wait for all that is still queued.
        readers.shutdown(wait=False, cancel_futures=True)
        decoders.close()
        case_index.close()
        encoder.close()
    report.seconds = time.monotonic() - started
    return report


def _batches(
    decoded: Iterable[tuple[Path, Image | InvalidInput]],
    root: Path,
    labels: dict[str, Labels],
    report: Report,
) -> Iterator[list[Item]]:
    def items() -> Iterator[Item]:
        for file, image in decoded:
            if isinstance(image, InvalidInput):
                report.skipped[image.reason.value] += 1
                continue
            known = labels.get(file.relative_to(root).as_posix(), Labels())
            yield Item(image, known.label, known.cancer_type)

    stream = items()
    while batch := list(islice(stream, BATCH)):
        yield batch


def read_labels(table: Path | None) -> dict[str, Labels]:
    """Read a table of labels; an empty one where there is no table."""
    if table is None:
        return {}
    with table.open(newline="") as rows:
        return {
            row["file"]: Labels(row.get("label") or "", row.get("cancer_type") or "")
            for row in csv.DictReader(rows)
        }


def _decode(file: Path, *, decoders: DecoderPool, side: int, most: int) -> Image | InvalidInput:
    try:
        with file.open("rb") as stream:
            # One byte more than is taken is enough to be refused by.
            data = stream.read(most + 1)
        return decoders.decode(data, side=side, frame=REPRESENTATIVE, deadline=Deadline.never())
    except OSError as error:
        return InvalidInput(Reason.NOT_AN_IMAGE, f"The file cannot be read ({error.strerror}).")
    except InvalidInput as error:
        return error
