"""``dafh export``: from a training run to a model version that Triton serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dafh.encoding.port import MODEL
from dafh.settings import ModelSettings, load
from dafh_export.engine_commands import plans_command, tensorrt_command
from dafh_export.parity_commands import precision_command, verify_command

app = typer.Typer(help="Turn a training run into a served model version.", no_args_is_help=True)
app.command("precision")(precision_command)
app.command("verify")(verify_command)
app.command("tensorrt")(tensorrt_command)
app.command("plans")(plans_command)


@app.command("onnx")
def onnx_command(
    run: Annotated[Path, typer.Option(help="Folder that `dafh train` wrote.", exists=True)],
    out: Annotated[
        Path | None, typer.Option(help="Where model.onnx goes; the run itself by default.")
    ] = None,
) -> None:
    """Write the run's network as ONNX, with provenance.json beside it."""
    # torch takes seconds to import: only for those who export.
    from dafh_export.onnx import export_onnx

    description = export_onnx(run, out or run)
    typer.echo(f"model hash {description.hash}")


@app.command("calibration")
def calibration_command(
    run: Annotated[Path, typer.Option(help="Folder with checkpoint and ONNX.", exists=True)],
    manifest: Annotated[Path, typer.Option(help="CSV that the run was trained on.", exists=True)],
    root: Annotated[Path, typer.Option(help="Folder that the files are relative to.", exists=True)],
) -> None:
    """Fit calibration.json on the part of the train split that the run held out."""
    from dafh_export.calibrate import calibrate

    fitted = calibrate(run, manifest, root)
    typer.echo(f"fitted on {fitted.fitted_on}")


@app.command("repository")
def repository_command(
    run: Annotated[Path, typer.Option(help="Folder with checkpoint and ONNX.", exists=True)],
    version: Annotated[int, typer.Option(help="Number of the new version.", min=1)],
    out: Annotated[
        Path | None, typer.Option("--out", "--repository", help="Triton's model repository.")
    ] = None,
    name: Annotated[
        str, typer.Option(help="Of the model; another one for tensors of other shapes.")
    ] = MODEL,
    trial: Annotated[
        bool, typer.Option(help="Load it in a real tritonserver before it is published.")
    ] = True,
) -> None:
    """Publish the run as a version of the model repository."""
    from dafh_export.repository import publish

    target = out or load(ModelSettings).model_repository
    model = publish(run, target, version, name, trial=trial)
    typer.echo(f"published version {model.version}, model hash {model.hash}, in {target}")
