"""What one image costs on one core, by model version, with the saliency map and without.

``python -m bench.encoder`` prints milliseconds (median over rounds of single images), the share of
the saliency map, and the size of the file. Rounds with and without the map alternate, so that a
busy machine slows both alike.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from dafh.encoding.onnx import MODEL_FILE, open_session
from dafh.encoding.port import IMAGE, MODEL, SALIENCY
from dafh.settings import ModelSettings

ROUNDS = 300
WARM_UP = 20


def main(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Model files; those published.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Images of each.")] = ROUNDS,
) -> None:
    """Time model files."""
    published = sorted((ModelSettings().model_repository / MODEL).glob(f"*/{MODEL_FILE}"))
    table = Table("model", "side", "ms", "without map", "share of the map", "MiB")
    for file in files or published:
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
        whole, bare = (1000 * median(taken[name]) for name in ("all", "bare"))
        share, size = (whole - bare) / whole, file.stat().st_size / 2**20
        columns = (f"{whole:.2f}", f"{bare:.2f}", f"{share:.1%}", f"{size:.1f}")
        table.add_row(file.parent.name, str(side), *columns)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
