"""``dafh evaluate``: retrieval quality of a model version on a manifest of labelled images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dafh.codes import BITS
from dafh.errors import InvalidInput, Reason
from dafh.settings import ModelSettings, load


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
    from dafh.evaluation.report import report, tables

    lengths = bits or list(BITS)
    unknown = sorted(set(lengths) - set(BITS))
    if unknown:
        raise InvalidInput(
            Reason.ARGUMENT_INVALID, f"A code has {BITS} bits, not {unknown}.", subject="bits"
        )
    settings = load(ModelSettings)
    if model and not model.isdecimal():
        encoder = OnnxEncoder.of_file(Path(model), threads=2)
    else:
        version = int(model or settings.model_version)
        encoder = OnnxEncoder(settings.model_repository, version, threads=2)
    splits = encode_manifest(manifest, root, encoder)
    result = report(splits, encoder, lengths)
    console = Console()
    for table in tables(result):
        console.print(table)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(result.as_json(), indent=2) + "\n")
    if plots is not None:
        from dafh.evaluation.plots import draw_all

        for picture in draw_all(splits, result.codes, plots):
            console.print(f"drew {picture}", soft_wrap=True)
