"""``dafh inspect``: whether files would be taken, what would be done to them, and how it looks."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from dafh.deadline import Deadline
from dafh.errors import DafhError, InvalidInput, Misconfigured, Reason
from dafh.imaging.codecs import syntax_name
from dafh.imaging.decode import REPRESENTATIVE
from dafh.imaging.image import Image
from dafh.imaging.limits import Policy
from dafh.imaging.pool import DecoderPool
from dafh.imaging.sniff import sniff
from dafh.settings import DecodeSettings, load
from dafh.terminal import shown
from dafh.writing import FULL

#: Side of the served model's input in pixels; `dafh.v1.Model` of another version says its own.
SIDE = 128
#: Values of ``--frame`` beside numbers.
ALL = "all"
NAMED_FRAMES = {"representative": REPRESENTATIVE, ALL: None}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a file; nothing in it but `file`, the caller's own words, is of a patient."""

    file: str
    ok: bool
    #: Of the refusal, as `message`; the fields below are empty then.
    reason: str | None = None
    message: str | None = None
    #: UID (PS3.6 A) and name; for a PNG or JPEG file the name of the format alone.
    transfer_syntax: str | None = None
    transfer_syntax_name: str | None = None
    modality: str | None = None
    #: How many the file has, and the one looked at: `None` for all of them.
    frames: int | None = None
    frame: int | None = None
    rows: int | None = None
    columns: int | None = None
    applied: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    milliseconds: float = 0.0
    #: Pictures written, by the SHA-256 of their grey levels.
    png: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inspector:
    """Judges files one at a time, each in a process that may die of it.

    Parameters
    ----------
    pool
        Decodes.
    policy
        As the pool's.
    side
        Side of the model's input in pixels.
    frame
        Number, `REPRESENTATIVE`, or `None` for all.
    png
        Folder for pictures, if they are wanted.
    """

    pool: DecoderPool
    policy: Policy
    side: int
    frame: int | None
    png: Path | None

    def judge(self, file: Path) -> Verdict:
        """Say what becomes of a file.

        Raises
        ------
        Misconfigured
            A picture cannot be written.
        """
        started = time.perf_counter()
        try:
            verdict = self._look(file)
        except InvalidInput as error:
            verdict = Verdict(str(file), False, error.reason.value, str(error))
        return replace(verdict, milliseconds=round(1000 * (time.perf_counter() - started), 1))

    def _look(self, file: Path) -> Verdict:
        data = _read(file, self.policy)
        # What several frames have in common is said once.
        applied: dict[str, None] = {}
        warnings: dict[str, None] = {}
        pictures: dict[str, None] = {}
        for image in self._images(data):
            applied |= dict.fromkeys(image.applied)
            warnings |= dict.fromkeys(image.warnings)
            if self.png:
                pictures[_write(image, self.png)] = None
        metadata = image.metadata
        uid = metadata.transfer_syntax
        return Verdict(
            file=str(file),
            ok=True,
            transfer_syntax=uid or None,
            transfer_syntax_name=syntax_name(uid) if uid else sniff(data, self.policy).value,
            modality=metadata.modality or None,
            frames=metadata.frames,
            frame=None if self.frame is None else image.frame,
            rows=metadata.rows,
            columns=metadata.columns,
            applied=tuple(applied),
            warnings=tuple(warnings),
            png=tuple(pictures),
        )

    def _images(self, data: bytes) -> Iterator[Image]:
        # Without deadline: a person waits and can interrupt; the policy ends a file that hangs.
        options: dict[str, Any] = {
            "side": self.side,
            "content_hash": False,
            "deadline": Deadline.never(),
        }
        if self.frame is None:
            yield from self.pool.decode_all(data, **options)
        else:
            yield self.pool.decode(data, frame=self.frame, **options)


def inspect(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="DICOM, PNG or JPEG files; folders are walked.", exists=True, readable=False
        ),
    ],
    png: Annotated[
        Path | None,
        typer.Option(help="Folder for pictures of what the model would see.", file_okay=False),
    ] = None,
    frame: Annotated[
        str, typer.Option(help="Which frame: a number from 1, representative, or all.")
    ] = "representative",
    side: Annotated[int, typer.Option(min=8, max=1024, help="Side of the model's input.")] = SIDE,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a file.")] = False,
) -> None:
    """Say for each file whether it would be taken, or why not, and what would be done to it.

    Exit code 0 when every file was judged, whatever the verdicts. Nothing is sent or stored.
    """
    chosen = _frame(frame)
    found = list(_walk(files))
    console = Console(stderr=True)
    if png:
        _make(png)
    settings = load(DecodeSettings)
    workers = max(1, min(settings.decode_workers, len(found)))
    verdicts: list[Verdict] = []
    with (
        DecoderPool(workers=workers, policy=settings.policy) as pool,
        # The threads only read files and wait: each has a decoder process to itself.
        ThreadPoolExecutor(workers) as threads,
    ):
        inspector = Inspector(pool, settings.policy, side, chosen, png)
        try:
            for verdict in track(
                threads.map(inspector.judge, found),
                total=len(found),
                description="inspecting",
                console=console,
                disable=not console.is_terminal or as_json,
                transient=True,
            ):
                if as_json:
                    typer.echo(json.dumps(asdict(verdict)))
                else:
                    verdicts.append(verdict)
        finally:
            # An interrupt must not wait for all that is still queued.
            threads.shutdown(wait=False, cancel_futures=True)
    if not as_json:
        _show(verdicts)


def _frame(text: str) -> int | None:
    if text in NAMED_FRAMES:
        return NAMED_FRAMES[text]
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise typer.BadParameter("a number from 1, 'representative' or 'all'", param_hint="--frame")


def _walk(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(found for found in path.rglob("*") if found.is_file())
        else:
            yield path


def _read(file: Path, policy: Policy) -> bytes:
    try:
        with file.open("rb") as stream:
            # One byte more than is taken is enough to be refused by.
            return stream.read(policy.limits.request_bytes + 1)
    except OSError as error:
        raise InvalidInput(
            Reason.NOT_AN_IMAGE,
            f"The file cannot be read ({error.strerror}).",
            remedy="Check its permissions.",
        ) from None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(error) from None


def _write(image: Image, folder: Path) -> str:
    """Write what the model would see; return the file's name.

    It is a hash: the name of the source may hold a patient's.
    """
    name = f"{hashlib.sha256(image.pixels.tobytes()).hexdigest()}.png"
    encoded = cv2.imencode(".png", image.pixels[0])[1].tobytes()
    # Threads may write the same picture: each has a file of its own until it is whole.
    part = folder / f".{name}.{time.monotonic_ns()}"
    try:
        part.write_bytes(encoded)
        part.replace(folder / name)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _unwritable(error) from None
    return name


def _unwritable(error: OSError) -> DafhError:
    return Misconfigured(
        Reason.DISK_FULL if error.errno in FULL else Reason.ARGUMENT_INVALID,
        f"The folder for pictures cannot be written ({error.strerror}).",
        remedy="Name a folder that is yours, on a disk with room.",
        subject="png",
    )


def _show(verdicts: list[Verdict]) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for column in ("file", "verdict", "stored as", "frames", "size", "what is done", "ms"):
        table.add_column(column, overflow="fold", no_wrap=column in ("verdict", "size", "ms"))
    for one in verdicts:
        if not one.ok:
            table.add_row(
                shown(one.file), f"[red]{one.reason}[/]", "", "", "", escape(one.message or ""),
                f"{one.milliseconds:.0f}",
            )  # fmt: skip
            continue
        kind = " ".join(filter(None, (one.modality, one.transfer_syntax_name)))
        done = [*map(escape, one.applied), *(f"[yellow]{escape(text)}[/]" for text in one.warnings)]
        table.add_row(
            shown(one.file), "[green]ok[/]", escape(kind), str(one.frames),
            f"{one.rows} x {one.columns}", "; ".join(done), f"{one.milliseconds:.0f}",
        )  # fmt: skip
    console = Console()
    console.print(table)
    refused = sum(not one.ok for one in verdicts)
    console.print(f"{len(verdicts) - refused} taken, {refused} refused")
