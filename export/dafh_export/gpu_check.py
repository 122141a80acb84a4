"""``make gpu-check``: how near the network comes to what this GPU can do.

Runs where there is a GPU and says so where there is none. The served graph is measured as a
TensorRT engine where TensorRT is there, and as the same network in torch on CUDA otherwise; beside
it stand the device's own measured ceilings, matrix product and copy.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch.utils.flop_counter import FlopCounterMode

from dafh.cli import exit_code
from dafh.deadline import Deadline
from dafh.encoding.onnx import MODEL_FILE
from dafh.errors import DafhError, Misconfigured
from dafh.settings import ModelSettings, load
from dafh.writing import write_atomically
from dafh_export.checkpoint import Checkpoint, load_checkpoint
from dafh_export.engine import BuildOptions
from dafh_export.model_file import Precision

BATCHES = (1, 8, 64, 256)
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
#: Rounds that are timed, after those that only warm up.
ROUNDS, WARM_UP = 30, 5
#: Side of the square matrices and megabytes of the copy that the ceilings are measured with.
MATRIX, MEGABYTES = 8192, 512
#: For building one engine.
BUILD_SECONDS = 1800.0


class Ceiling(BaseModel):
    """What the device reaches at best in one type."""

    model_config = ConfigDict(frozen=True)

    type: str
    #: Of a square matrix product, 10^12 operations per second.
    teraflops: float


class Measured(BaseModel):
    """One way to run the network at one batch size."""

    model_config = ConfigDict(frozen=True)

    #: ``torch`` or ``tensorrt``.
    runner: str
    type: str
    batch: int
    #: Of one batch that is on the device already, milliseconds: median and 99th percentile.
    median_ms: float
    p99_ms: float
    images_per_second: float
    #: Of the matrix product's rate in the same type.
    share_of_ceiling: float


class GpuCheck(BaseModel):
    """Contents of ``gpu-check.json``."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    device: str
    date: datetime
    torch: str
    #: Empty where it is not installed.
    tensorrt: str
    model_hash: str
    #: Of one image, 10^9 operations.
    gigaflops_per_image: float
    copy_gigabytes_per_second: float
    ceilings: list[Ceiling]
    measured: list[Measured]


def check(version: Path, device: torch.device, batches: tuple[int, ...] = BATCHES) -> GpuCheck:
    """Measure a version on a device.

    Parameters
    ----------
    version
        Version folder, with checkpoint and model files.
    device
        Where; anything but a GPU is for tests only.
    batches
        Batch sizes.
    """
    from dafh_export.model_file import load_model, read_description

    checkpoint = load_checkpoint(version)
    flops = operations(checkpoint)
    large = device.type == "cuda"
    ceilings = [
        Ceiling(type=name, teraflops=matrix_rate(device, dtype, MATRIX if large else 256))
        for name, dtype in TYPES.items()
    ]
    best = {one.type: one.teraflops for one in ceilings}
    measured = [
        _measured(runner, kind, batch, seconds, flops, best)
        for runner, kind, batch, seconds in (
            *on_torch(checkpoint, device, batches),
            *(on_tensorrt(version, device, batches) if large else ()),
        )
    ]
    return GpuCheck(
        device=torch.cuda.get_device_name(device) if large else "CPU",
        date=datetime.now(UTC),
        torch=torch.__version__,
        tensorrt=tensorrt_version(),
        model_hash=read_description(load_model(version / MODEL_FILE)).hash,
        gigaflops_per_image=flops / 1e9,
        copy_gigabytes_per_second=copy_rate(device, MEGABYTES if large else 8),
        ceilings=ceilings,
        measured=measured,
    )


def operations(checkpoint: Checkpoint) -> float:
    """Count multiplications and additions of one image's pass, by torch's own counter."""
    image = torch.zeros(1, 1, checkpoint.side, checkpoint.side, dtype=torch.uint8)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        checkpoint.network(image)
    return float(counter.get_total_flops())


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Return the rate of a square matrix product, 10^12 operations per second."""
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = statistics.median(timed(lambda: left @ right, device))
    return 2 * side**3 / seconds / 1e12


def copy_rate(device: torch.device, megabytes: int) -> float:
    """Return the rate of a copy within the device's memory, read and write, GB per second."""
    source = torch.zeros(megabytes << 20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = statistics.median(timed(lambda: target.copy_(source), device))
    return 2 * source.numel() / seconds / 1e9


def on_torch(
    checkpoint: Checkpoint, device: torch.device, batches: tuple[int, ...]
) -> Iterator[tuple[str, str, int, list[float]]]:
    """Time the network in torch: runner, type, batch, seconds of each round."""
    network = checkpoint.network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
    for name, dtype in TYPES.items():
        lower = torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)
        for batch in batches:
            images = _images(batch, checkpoint.side).to(device)
            with torch.no_grad(), lower:
                yield "torch", name, batch, timed(lambda given=images: network(given), device)  # type: ignore[misc]  # the default binds the loop's value
    checkpoint.network.to("cpu")


def on_tensorrt(
    version: Path, device: torch.device, batches: tuple[int, ...]
) -> Iterator[tuple[str, str, int, list[float]]]:
    """Time the version's engines, built here; nothing where there is no TensorRT.

    The images travel to the device and the hash outputs back in every round: this is what Triton
    does for a request.
    """
    from dafh_export.tensorrt import TensorRtBuilder, running

    builder = TensorRtBuilder()
    try:
        builder.target()
    except Misconfigured as error:
        _say(str(error))
        return
    for precision in (Precision.FP32, Precision.FP16):
        path = version / precision.file
        if not path.is_file():
            continue
        with tempfile.TemporaryDirectory(prefix="dafh-export-") as folder:
            timings = Path(folder) / "timing.cache"
            built = builder.build(path, BuildOptions(), timings, Deadline.after(BUILD_SECONDS))
        side = load_checkpoint(version).side
        with running(built.plan) as run:
            for batch in batches:
                if batch <= BuildOptions().profiles[-1].maximum:
                    images = _images(batch, side).numpy()
                    seconds = timed(lambda given=images: run(given), device)  # type: ignore[misc]  # the default binds the loop's value
                    yield "tensorrt", str(precision), batch, seconds


def timed(work: Callable[[], object], device: torch.device) -> list[float]:
    """Return the seconds of each of `ROUNDS` rounds, the device waited for in each."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    seconds = []
    for round_ in range(WARM_UP + ROUNDS):
        wait()
        started = time.perf_counter()
        work()
        wait()
        if round_ >= WARM_UP:
            seconds.append(time.perf_counter() - started)
    return seconds


def draw(result: GpuCheck, path: Path) -> None:
    """Plot images per second over batch size, with the matrix product's rate as the limit."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for runner, kind in sorted({(one.runner, one.type) for one in result.measured}):
        line = [one for one in result.measured if (one.runner, one.type) == (runner, kind)]
        axes.plot(
            [one.batch for one in line],
            [one.images_per_second for one in line],
            marker="o",
            label=f"{runner} {kind}",
        )
    for ceiling in result.ceilings:
        rate = ceiling.teraflops * 1e3 / result.gigaflops_per_image
        axes.axhline(rate, linestyle=":", linewidth=1, color="grey")
        axes.annotate(f"matrix product {ceiling.type}", (1, rate), fontsize=7, va="bottom")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="batch size",
        ylabel="images per second",
        title=f"{result.device}, {result.date:%Y-%m-%d}",
    )
    axes.set_xticks(sorted({one.batch for one in result.measured}), minor=False)
    axes.get_xaxis().set_major_formatter("{x:.0f}")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def tensorrt_version() -> str:
    """Return the version of TensorRT; empty where it cannot be used."""
    from dafh_export.tensorrt import import_tensorrt

    try:
        return str(import_tensorrt().__version__)
    except Misconfigured:
        return ""


def _images(batch: int, side: int) -> torch.Tensor:
    random = np.random.default_rng(0)
    return torch.from_numpy(random.integers(0, 256, (batch, 1, side, side), dtype=np.uint8))


def _measured(
    runner: str,
    kind: str,
    batch: int,
    seconds: list[float],
    flops: float,
    best: dict[str, float],
) -> Measured:
    median = statistics.median(seconds)
    return Measured(
        runner=runner,
        type=kind,
        batch=batch,
        median_ms=1e3 * median,
        p99_ms=1e3 * float(np.quantile(seconds, 0.99)),
        images_per_second=batch / median,
        share_of_ceiling=batch * flops / median / 1e12 / best[kind],
    )


def main() -> None:
    """Measure the default model version on this machine's GPU, where there is one."""
    parser = argparse.ArgumentParser(prog="python -m dafh_export.gpu_check", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/gpu-check"))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        _say("there is no GPU that torch can use here; nothing was measured.")
        return
    try:
        settings = load(ModelSettings)
        version = settings.model_repository / "dafh" / str(settings.model_version)
        result = check(version, torch.device("cuda"))
    except DafhError as error:
        _say(str(error))
        sys.exit(exit_code(error))
    options.out.mkdir(parents=True, exist_ok=True)
    data = f"{result.model_dump_json(indent=2)}\n".encode()
    write_atomically(options.out / "gpu-check.json", data)
    draw(result, options.out / "gpu-check.png")
    for one in result.measured:
        _say(
            f"{one.runner} {one.type} batch {one.batch}: {one.median_ms:.2f} ms, "
            f"{one.images_per_second:.0f} images/s, {one.share_of_ceiling:.1%} of the ceiling"
        )
    _say(f"written to {options.out}")


def _say(text: str) -> None:
    sys.stderr.write(f"gpu-check: {text}\n")


if __name__ == "__main__":
    main()
