"""``dafh phantom``: synthetic DICOM files to try everything with."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track

from dafh.errors import Misconfigured, Reason
from dafh.writing import FULL

if TYPE_CHECKING:
    from multiprocessing.pool import Pool

    from dafh.imaging.phantom import Place

MANIFEST = "manifest.csv"
#: Phantoms that are worth several processes; how many are made between two looks at the progress,
#: and by one process at a time.
MANY, ROUND, CHUNK = 500, 2_000, 50
COLUMNS = ("file", "label", "modality")


def phantom(
    out: Annotated[
        Path, typer.Argument(help="Folder to write to; made if missing.", file_okay=False)
    ],
    instances: Annotated[int, typer.Option(min=1, help="How many DICOM files.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")] = False,
) -> None:
    """Write synthetic DICOM images (CT, MR, PT, US, MG) and a manifest.csv that labels them.

    They are drawn by a program and marked as such: not patient data.
    """
    console = Console(stderr=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
        rows = list(
            track(
                _made(out, instances, seed),
                total=instances,
                description="phantoms",
                console=console,
                disable=not console.is_terminal,
                transient=True,
            )
        )
        with (out / MANIFEST).open("w", newline="") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(COLUMNS)
            table.writerows(rows)
    except OSError as error:
        raise Misconfigured(
            Reason.DISK_FULL if error.errno in FULL else Reason.ARGUMENT_INVALID,
            f"The folder for phantoms cannot be written ({error.strerror}).",
            remedy="Name a folder that is yours, on a disk with room.",
            subject="out",
        ) from None
    if as_json:
        typer.echo(json.dumps({"out": str(out), "instances": len(rows), "seed": seed}))
    else:
        typer.echo(f"{len(rows)} phantoms and {MANIFEST} in {out} (synthetic, not patient data)")


def _made(out: Path, instances: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """Write phantoms, in as many processes as there are processors, and yield their rows."""
    # Codecs take a while to import: only for those who draw.
    from dafh.imaging.phantom import places

    write, all_places = partial(_write, out), places(instances, seed)
    if instances < MANY:
        yield from map(write, all_places)
        return
    with _ended_by_sigterm(), _pool() as pool:
        # A round at a time: a pool takes all it is given into memory.
        while some := list(islice(all_places, ROUND)):
            yield from pool.map(write, some, chunksize=CHUNK)


def _pool() -> Pool:
    """Return a pool whose processes leave Ctrl-C to this one, from their first moment on."""
    # What is ignored stays so in what is started.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return get_context("spawn").Pool(len(os.sched_getaffinity(0)))
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """End in good order at SIGTERM, and not at once: a pool has processes to end."""

    def told(number: int, frame: object) -> None:
        del frame
        # What a shell says of a program that the signal ended.
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, told)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _write(out: Path, place: Place) -> tuple[str, str, str]:
    from dafh.imaging.phantom import drawn

    one = drawn(place)
    (out / one.file_name).write_bytes(one.data)
    return one.file_name, one.label, one.modality
