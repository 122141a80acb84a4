"""``dafh evaluate``: retrieval quality of a model version on a manifest of labelled images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dafh.codes import BITS
from dafh.settings import ModelSettings, load


def evaluate(
    manifest: Annotated[Path, typer.Option(help="CSV with file, class, split.", exists=True)],
    root: Annotated[Path, typer.Option(help="Folder that the files are relative to.", exists=True)],
    model: Annotated[int | None, typer.Option(help="Model version.")] = None,
    bits: Annotated[list[int] | None, typer.Option(help="Code lengths; all by default.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures here.")
    ] = None,
) -> None:
    """Ask the rows of split "database" with those of split "query"; print MAP@10 by class."""
    # ONNX Runtime takes a while to import: only for those who evaluate.
    from dafh.encoding.onnx import OnnxEncoder
    from dafh.evaluation.protocol import evaluate as run

    settings = load(ModelSettings)
    encoder = OnnxEncoder(settings.model_repository, model or settings.model_version, threads=2)
    results = run(manifest, root, encoder, bits or BITS)
    table = Table("class", *(f"{length} bits" for length in results), title="MAP@10")
    for name in sorted(next(iter(results.values())).per_class):
        table.add_row(name, *(f"{result.per_class[name]:.3f}" for result in results.values()))
    table.add_section()
    table.add_row("macro", *(f"{result.macro:.3f}" for result in results.values()))
    Console().print(table)
    if json_file is not None:
        figures = {
            str(length): {"map_at_10": {"macro": result.macro, "per_class": result.per_class}}
            for length, result in results.items()
        }
        json_file.write_text(json.dumps(figures, indent=2) + "\n")
