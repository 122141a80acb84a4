"""``dafh export tensorrt`` and ``plans``: compiled engines, for a desk and for a cluster."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from dafh_export.engine import BuildOptions, HardwareCompatibility
from dafh_export.model_file import Precision
from dafh_export.parity_commands import CalibrationManifest, CalibrationRoot, calibration_images

Hardware = Annotated[
    HardwareCompatibility, typer.Option(help="GPUs that may run the plan; NONE: those like this.")
]
VersionCompatible = Annotated[
    bool, typer.Option(help="Let later releases of TensorRT's major version run the plan.")
]
Minutes = Annotated[float, typer.Option(help="Time for all builds together.", min=0.1)]


def tensorrt_command(
    onnx: Annotated[Path, typer.Option(help="model.onnx of a run or version.", exists=True)],
    out: Annotated[Path, typer.Option(help="Folder for model.plan and what is known of it.")],
    precision: Annotated[Precision, typer.Option(help="In what the engine computes.")],
    calibration: CalibrationManifest = None,
    root: CalibrationRoot = None,
    hardware: Hardware = HardwareCompatibility.NONE,
    version_compatible: VersionCompatible = False,
    timing_cache: Annotated[
        Path | None, typer.Option(help="File of measured kernels, kept from build to build.")
    ] = None,
    minutes: Minutes = 30.0,
) -> None:
    """Compile the model for the GPU of this machine; needs TensorRT 10 or 11."""
    from dafh.deadline import Deadline
    from dafh_export.plans import fill, key_of, writing
    from dafh_export.tensorrt import TensorRtBuilder

    builder = TensorRtBuilder()
    # First of all, so that nothing is half made where nothing can be built.
    target = builder.target()
    options = BuildOptions(hardware=hardware, version_compatible=version_compatible)
    with writing(out), tempfile.TemporaryDirectory(prefix="dafh-export-") as folder:
        model = _in_precision(onnx, precision, Path(folder), calibration, root)
        started = time.monotonic()
        timings = timing_cache or Path(folder) / "timing.cache"
        built = builder.build(model, options, timings, Deadline.after(60 * minutes))
        out.mkdir(parents=True, exist_ok=True)
        record = fill(out, key_of(model, target, options), built, time.monotonic() - started)
    typer.echo(f"built {record.bytes} bytes for {record.gpu}, TensorRT {record.tensorrt}, in {out}")


def plans_command(
    cache: Annotated[Path, typer.Option(help="Folder on the volume that pods share.")],
    out: Annotated[Path, typer.Option(help="Becomes Triton's model repository.")],
    precision: Annotated[Precision, typer.Option(help="Which published model files to build.")],
    repository: Annotated[
        Path | None, typer.Option(help="Model repository that was published.")
    ] = None,
    version: Annotated[list[int] | None, typer.Option(help="Versions; all by default.")] = None,
    hardware: Hardware = HardwareCompatibility.NONE,
    version_compatible: VersionCompatible = False,
    minutes: Minutes = 30.0,
) -> None:
    """Make a Triton pod's model repository of plans, building those that the volume lacks."""
    from dafh.deadline import Deadline
    from dafh.settings import ModelSettings, load
    from dafh_export.plans import PlanCache
    from dafh_export.serving_repository import assemble
    from dafh_export.tensorrt import TensorRtBuilder

    plans = assemble(
        repository or load(ModelSettings).model_repository,
        PlanCache(cache),
        out,
        precision,
        TensorRtBuilder(),
        versions=version or (),
        options=BuildOptions(hardware=hardware, version_compatible=version_compatible),
        deadline=Deadline.after(60 * minutes),
    )
    for plan in plans:
        typer.echo(f"serves {plan}")


def _in_precision(
    onnx: Path, precision: Precision, folder: Path, calibration: Path | None, root: Path | None
) -> Path:
    """Return the model file in a precision: itself where it is, else made in `folder`."""
    from dafh_export.model_file import load_model, read_precision

    if read_precision(load_model(onnx)) is precision:
        return onnx
    from dafh_export.precision import put_precision

    return put_precision(onnx, folder, precision, calibration_images(onnx, calibration, root))
