"""``dafh evaluate``: retrieval quality of a model version on a manifest of labelled images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated

import typer
from rich.console import Console

from dafh.codes import BITS
from dafh.errors import InvalidInput, Misconfigured, Reason
from dafh.settings import ModelSettings, load
from dafh.writing import FULL


def evaluate(
    manifest: Annotated[Path, typer.Option(help="CSV with file, class, split.", exists=True)],
    root: Annotated[Path, typer.Option(help="Folder that the files are relative to.", exists=True)],
    model: Annotated[
        str, typer.Option(help="Model version, or an ONNX file; the served version by default.")
    ] = "",
    bits: Annotated[list[int] | None, typer.Option(help="Code lengths; all by default.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures here.")
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for pictures.")] = None,
) -> None:
    """Ask the rows of split "database" with those of split "query"; print what came back.

    MAP@10 by class, modality, organ and cancer type, with bootstrap intervals, and the classifier.
    """
    # ONNX Runtime and scikit-learn take a while to import: only for those who evaluate.
    from dafh.encoding.onnx import OnnxEncoder
    from dafh.evaluation.encoded import encode_manifest
    from dafh.evaluation.report import counts, report, tables

    lengths = bits or list(BITS)
    unknown = sorted(set(lengths) - set(BITS))
    if unknown:
        raise InvalidInput(
            Reason.ARGUMENT_INVALID, f"A code has {BITS} bits, not {unknown}.", subject="bits"
        )
    # Before minutes of encoding, whose outcome would have no place.
    if json_file is not None:
        _require_writable(json_file, "json")
    if plots is not None:
        _require_writable(plots / "codes.png", "plots")
    settings = load(ModelSettings)
    if model and not model.isdecimal():
        encoder = OnnxEncoder.of_file(Path(model), threads=2)
    else:
        version = int(model or settings.model_version)
        encoder = OnnxEncoder(settings.model_repository, version, threads=2)
    splits = encode_manifest(manifest, root, encoder)
    result = report(splits, encoder, lengths)
    console = Console()
    console.print(counts(result), soft_wrap=True)
    for table in tables(result):
        console.print(table)
    if json_file is not None:
        with _writing("json"):
            json_file.write_text(json.dumps(result.as_json(), indent=2) + "\n")
    if plots is not None:
        from dafh.evaluation.plots import draw_all

        with _writing("plots"):
            drawn = draw_all(splits, result.codes, plots)
        for picture in drawn:
            console.print(f"drew {picture}", soft_wrap=True)


def _require_writable(file: Path, option: str) -> None:
    """See that a file can be written, and leave nothing but its folder."""
    with _writing(option):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") if file.exists() else TemporaryFile(dir=file.parent):
            pass


@contextmanager
def _writing(option: str) -> Iterator[None]:
    """Say which option names what cannot be written."""
    try:
        yield
    except OSError as error:
        raise Misconfigured(
            Reason.DISK_FULL if error.errno in FULL else Reason.ARGUMENT_INVALID,
            f"What --{option} names cannot be written ({error.strerror}).",
            remedy=f"Name a {'file' if option == 'json' else 'folder'} that is yours to write, "
            "on a disk with room.",
            subject=option,
        ) from None
