"""The demonstration: real servers, real and phantom images, changed copies that find their source.

``python -m dafh_jobs.demo`` starts the embedded stack in a directory of its own, indexes, asks,
draws one answer, and stops the stack. Exit code 0 only where retrieval worked.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dafh.client import Client
from dafh.errors import DafhError
from dafh.imaging.changed_copies import Change, changed_copy
from dafh.imaging.decode import REPRESENTATIVE, decode
from dafh.imaging.image import Image
from dafh.imaging.samples import pydicom_files
from dafh.index.case import DEFAULT_ARCHIVE, DEFAULT_TENANT, CaseId, case_id
from dafh.stack import Stack, read_stack
from dafh_jobs.retrieve import answer_table
from dafh_jobs.sheet import Panel, draw_sheet

PHANTOMS = 300
SOURCES = 100
SHORT_SIDE = 64
#: Share of sources that must come first.
BARS = {Change.REWINDOWED: 0.95, Change.JPEG: 0.95, Change.ROTATED: 0.85, Change.RESCALED: 0.85}
#: Grey levels by which two model inputs of one picture may differ on average.
SAME = 1.0
SIDE = 128
FAILED = 1
TERMINATED = 143


@dataclass(frozen=True, slots=True)
class Source:
    """An indexed image that changed copies are made of."""

    file: Path
    image: Image

    @property
    def case(self) -> CaseId:
        """Its key in the archive."""
        uid = self.image.metadata.sop_instance_uid
        return case_id(DEFAULT_TENANT, DEFAULT_ARCHIVE, uid, self.image.frame)


def demo(
    data: Annotated[
        list[Path] | None, typer.Option(help="More folders of DICOM files.", exists=True)
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the contact sheet goes.")] = Path("out/demo"),
    instances: Annotated[int, typer.Option(min=12, help="How many phantoms.")] = PHANTOMS,
    sources: Annotated[
        int, typer.Option(min=1, help="Images that are asked for with each kind of change.")
    ] = SOURCES,
) -> None:
    """Show the whole path on this machine."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="dafh-demo-") as folder:
        work = Path(folder)
        phantoms = work / "phantoms"
        _dafh("phantom", phantoms, "--instances", instances)
        with _running_stack(work / "stack") as stack:
            folders = [pydicom_files(), phantoms, *(data or [])]
            for one in folders:
                table = one / "manifest.csv"
                labels = ("--labels", table) if one == phantoms else ()
                _dafh("index", one, *labels, "--no-journal", "--data-dir", work / "stack")
            with Client(stack.gateway.address) as client:
                found = list(_sources(folders, client))
                worked = _ask_all(found, sources, client, console)
                _show_one(found, client, console, out / "answer.png")
    raise typer.Exit(0 if worked else FAILED)


def _dafh(*arguments: object) -> None:
    subprocess.run([str(Path(sys.executable).with_name("dafh")), *map(str, arguments)], check=True)


@contextmanager
def _running_stack(data_dir: Path) -> Iterator[Stack]:
    try:
        _dafh("up", "--detach", "--port", 0, "--data-dir", data_dir)
        yield read_stack(data_dir)
    finally:
        _dafh("down", "--data-dir", data_dir)


def _sources(folders: list[Path], client: Client) -> Iterator[Source]:
    """Yield what of the folders is in the archive, pixel for pixel."""
    for file in sorted(file for folder in folders for file in folder.rglob("*")):
        try:
            source = Source(file, decode(file.read_bytes(), side=SIDE, frame=REPRESENTATIVE))
            name = f"archives/{DEFAULT_ARCHIVE}/cases/{source.case}"
            if client.get_case(name).content_sha256 == source.image.content_sha256:
                yield source
        except (DafhError, IsADirectoryError):
            continue


def _ask_all(sources: list[Source], most: int, client: Client, console: Console) -> bool:
    """Ask with changed copies of `most` sources; print how many come first; say if they suffice."""
    shown = {source.case: source.image for source in sources}
    fit = [
        source
        for source in sources
        if min(source.image.metadata.rows, source.image.metadata.columns) >= SHORT_SIDE
    ]
    chosen = random.Random(1).sample(fit, min(most, len(fit)))  # noqa: S311 - not a secret
    table = Table(
        "change", "source first", "of", "needed", title="Does a changed copy find its source?"
    )
    worked = bool(chosen)
    with ThreadPoolExecutor(4) as pool:
        for change, needed in BARS.items():
            ask = partial(_first, change=change, client=client)
            firsts = list(
                track(pool.map(ask, chosen), total=len(chosen), description=change,
                      console=console, disable=not console.is_terminal)
            )  # fmt: skip
            found = sum(
                first in shown and _same_picture(shown[first], source.image)
                for first, source in zip(firsts, chosen, strict=True)
            )
            share = found / len(chosen)
            worked = worked and share >= needed
            colour = "green" if share >= needed else "red"
            table.add_row(change, f"[{colour}]{share:.1%}[/]", str(len(chosen)), f"{needed:.0%}")
    console.print(table)
    return worked


def _same_picture(one: Image, other: Image) -> bool:
    """Say whether two images are one to the eye and to the model: an archive has such copies.

    Among pydicom's files there are several of one picture in transfer syntaxes that lose a little.
    """
    apart = np.abs(one.pixels.astype(np.int16) - other.pixels.astype(np.int16)).mean()
    return bool(apart <= SAME)


def _first(source: Source, change: Change, client: Client) -> CaseId:
    query = changed_copy(source.file.read_bytes(), change)
    answer = client.retrieve(dicom=query, top_k=1, include_same_patient=True)
    return CaseId(answer.hits[0].case.name.rpartition("/")[2] if answer.hits else "")


def _show_one(sources: list[Source], client: Client, console: Console, path: Path) -> None:
    """Ask one ordinary question, of a phantom that other patients' phantoms resemble."""
    by_case = {source.case: source for source in sources}
    source = next(one for one in sources if one.file.parent.name == "phantoms")
    answer = client.retrieve(dicom=source.file.read_bytes(), top_k=11)
    console.print(answer_table(answer))
    hits = []
    for hit in answer.hits:
        known = f"{hit.probability:.0%} relevant" if hit.HasField("probability") else ""
        shown = by_case[CaseId(hit.case.name.rpartition("/")[2])]
        caption = (f"{hit.case.modality} {hit.case.body_part.lower()}",
                   f"distance {hit.distance} of {answer.query.bits} bits", known)  # fmt: skip
        hits.append(Panel(shown.image.pixels[0], caption))
    metadata = source.image.metadata
    query = Panel(
        source.image.pixels[0], ("query", f"{metadata.modality} {metadata.body_part.lower()}")
    )
    draw_sheet("The most similar cases of other patients", query, hits, path)
    console.print(f"contact sheet: {path}")


def main() -> None:
    """Run the demonstration; on SIGTERM too, the stack is stopped and the folder removed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        typer.run(demo)
    except DafhError as error:
        sys.stderr.write(f"demo: {error}\n")
        sys.exit(FAILED)
    except subprocess.CalledProcessError as error:
        # The program that failed has said why.
        sys.exit(error.returncode)


if __name__ == "__main__":
    main()
