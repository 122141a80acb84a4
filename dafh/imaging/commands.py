"""``dafh phantom``: synthetic DICOM files to try everything with."""

from __future__ import annotations

import csv
import errno
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from dafh.errors import Misconfigured, Reason

MANIFEST = "manifest.csv"
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
    # Codecs take a while to import: only for those who draw.
    from dafh.imaging.phantom import phantoms

    console = Console(stderr=True)
    rows: list[tuple[str, str, str]] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for one in track(
            phantoms(instances, seed),
            total=instances,
            description="phantoms",
            console=console,
            disable=not console.is_terminal,
            transient=True,
        ):
            (out / one.file_name).write_bytes(one.data)
            rows.append((one.file_name, one.label, one.modality))
        with (out / MANIFEST).open("w", newline="") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(COLUMNS)
            table.writerows(rows)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise Misconfigured(
            Reason.DISK_FULL if full else Reason.ARGUMENT_INVALID,
            f"The folder for phantoms cannot be written ({error.strerror}).",
            remedy="Name a folder that is yours, on a disk with room.",
            subject="out",
        ) from None
    if as_json:
        typer.echo(json.dumps({"out": str(out), "instances": len(rows), "seed": seed}))
    else:
        typer.echo(f"{len(rows)} phantoms and {MANIFEST} in {out} (synthetic, not patient data)")
