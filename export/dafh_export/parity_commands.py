"""``dafh export precision`` and ``verify``: other precisions, and whether they say the same."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from dafh_export.model_file import Precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dafh_export.parity import Report

#: Images that activations' ranges are found with; more did not change them.
CALIBRATION_IMAGES = 256

Manifest = Annotated[Path, typer.Option(help="CSV with file, class, split.", exists=True)]
Root = Annotated[Path, typer.Option(help="Folder that the files are relative to.", exists=True)]
CalibrationManifest = Annotated[
    Path | None, typer.Option("--calibration", help="CSV whose train split calibrates int8, fp8.")
]
CalibrationRoot = Annotated[
    Path | None, typer.Option("--root", help="Folder that the CSV's files are relative to.")
]


def precision_command(
    onnx: Annotated[Path, typer.Option(help="model.onnx of a run.", exists=True)],
    precision: Annotated[Precision, typer.Option(help="What to put into the graph.")],
    out: Annotated[Path | None, typer.Option(help="Folder; that of the ONNX by default.")] = None,
    calibration: CalibrationManifest = None,
    root: CalibrationRoot = None,
) -> None:
    """Write the model in another precision; no GPU is needed."""
    from dafh_export.precision import put_precision

    images = calibration_images(onnx, calibration, root)
    written = put_precision(onnx, out or onnx.parent, precision, images)
    typer.echo(f"wrote {written}; see whether it may be served with `dafh export verify`")


def verify_command(
    run: Annotated[
        Path, typer.Option(help="Run, or version folder, with model.onnx.", exists=True)
    ],
    manifest: Manifest,
    root: Root,
    triton: Annotated[bool, typer.Option(help="Compare a real tritonserver too.")] = True,
    plan: Annotated[
        Path | None, typer.Option(help="Folder with model.plan, on its GPU.", exists=True)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of parity.json and parity.md.")] = None,
) -> None:
    """Compare torch, every precision and real servers with the exported graph; 1 if one fails.

    Rows of the split "query" ask those of the split "database".
    """
    from dafh.encoding.onnx import MODEL_FILE
    from dafh_export.backends import candidates
    from dafh_export.images import read_split
    from dafh_export.model_file import load_model, read_description
    from dafh_export.parity import compare, write_report

    side = read_description(load_model(run / MODEL_FILE)).side
    query, database = (read_split(manifest, root, split, side) for split in ("query", "database"))
    with ExitStack() as stack:
        found = candidates(run, stack, triton=triton, plan=plan)
        report = compare(run / MODEL_FILE, query, database, found)
    write_report(report, out or run)
    show(report)
    if not report.passed:
        raise typer.Exit(1)


def calibration_images(
    onnx: Path, calibration: Path | None, root: Path | None
) -> NDArray[np.uint8] | None:
    """Return images of a manifest's train split, evenly over the file, uint8 ``[N, 1, S, S]``."""
    if calibration is None or root is None:
        return None
    from dafh_export.images import read_split
    from dafh_export.model_file import load_model, read_description

    side = read_description(load_model(onnx)).side
    return read_split(calibration, root, "train", side, most=CALIBRATION_IMAGES).images


def show(report: Report) -> None:
    """Print a report."""
    from dafh_export.parity import COLUMNS, rows

    table = Table(*COLUMNS, title=f"{report.queries} queries, {report.database} in the database")
    for row in rows(report):
        table.add_row(*row)
    Console().print(table)
