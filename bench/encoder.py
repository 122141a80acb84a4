"""What one image costs on one core, by model version, with the saliency map and without.

``python -m bench.encoder`` prints milliseconds (median over rounds of single images), the share of
the saliency map, and the size of the file. Those of the published versions are kept in
docs/performance/encoder.json. Rounds with and without the map alternate, so that a busy machine
slows both alike.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from bench.environment import environment
from dafh.encoding.onnx import MODEL_FILE, open_session
from dafh.encoding.port import IMAGE, MODEL, SALIENCY
from dafh.settings import ModelSettings

ROUNDS = 300
WARM_UP = 20
OUT = Path(__file__).resolve().parent.parent / "docs" / "performance"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one image costs on one core."""

    #: Name of the folder that the model file lies in: its version, where it is published.
    model: str
    side: int
    #: Median of single images, with the saliency map and without.
    milliseconds: float
    without_map: float
    mebibytes: float

    @property
    def share(self) -> float:
        """The saliency map's share of the time."""
        return 1 - self.without_map / self.milliseconds


def main(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Model files; those published.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Images of each.")] = ROUNDS,
    out: Annotated[Path, typer.Option(help="Folder of encoder.json.")] = OUT,
) -> None:
    """Time model files."""
    about = environment()
    published = sorted((ModelSettings().model_repository / MODEL).glob(f"*/{MODEL_FILE}"))
    costs = [measured(file, rounds) for file in files or published]
    table = Table("model", "side", "ms", "without map", "share of the map", "MiB")
    for one in costs:
        times = (f"{one.milliseconds:.2f}", f"{one.without_map:.2f}", f"{one.share:.1%}")
        table.add_row(one.model, str(one.side), *times, f"{one.mebibytes:.1f}")
    Console().print(table)
    if not files:
        told = {"environment": about, "models": [asdict(one) for one in costs]}
        (out / "encoder.json").write_text(json.dumps(told, indent=2) + "\n")


def measured(file: Path, rounds: int) -> Cost:
    """Time one model file."""
    session = open_session(file)
    side = session.get_inputs()[0].shape[-1]
    image = np.random.default_rng(0).integers(0, 256, (1, 1, side, side), dtype=np.uint8)
    everything = [output.name for output in session.get_outputs()]
    runs = {"all": everything, "bare": [name for name in everything if name != SALIENCY]}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(WARM_UP + rounds):
        for name, outputs in runs.items():
            started = time.perf_counter()
            session.run(outputs, {IMAGE: image})
            if turn >= WARM_UP:
                taken[name].append(time.perf_counter() - started)
    whole, bare = (round(1000 * median(taken[name]), 3) for name in ("all", "bare"))
    return Cost(file.parent.name, side, whole, bare, round(file.stat().st_size / 2**20, 3))


if __name__ == "__main__":
    typer.run(main)
