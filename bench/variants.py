"""What other image sizes, and another precision, would cost and give: ``python -m bench.variants``.

The shipped weights at several sides in fp32, and at their own side in fp16: macro MAP@10 of a
corpus's queries beside milliseconds an image on one core, taken by turns in one process. Other
programs may run beside it, so times are told as ratios; ``python -m bench.encoder`` measures one
alone. The float cosine of the fused features, before any hash head, is the ceiling that codes are
held against; so are plain codes of those features, ITQ and LSH learnt on the train split. Writes
docs/performance/variants.json and its picture; ``python -m bench.report`` draws that again.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from bench import pictures
from dafh.codes import BITS
from dafh.encoding.onnx import MODEL_FILE, OnnxEncoder, open_session
from dafh.encoding.port import IMAGE, MODEL
from dafh.evaluation.encoded import Rows, encode_manifest
from dafh.evaluation.feature_codes import itq, lsh
from dafh.evaluation.metrics import (
    average_precision,
    code_distances,
    cosine_distances,
    macro_map,
    nearest,
    relevance,
)
from dafh.evaluation.protocol import OUTSIDE_BAR, averaged, by_codes
from dafh.imaging.decode import REPRESENTATIVE, decode
from dafh.imaging.image import IMAGING_VERSION
from dafh.model.network import Dafh
from dafh.settings import ModelSettings
from dafh_export.checkpoint import Checkpoint, load_checkpoint
from dafh_export.model_file import Precision, describe, model_hash
from dafh_export.onnx import trace
from dafh_export.precision import put_precision

SIDES = (96, 128, 160, 192)
ROUNDS = 100
WARM_UP = 10
BATCH = 32
OUT = Path(__file__).resolve().parent.parent / "docs" / "performance"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to serve the same weights."""

    name: str
    side: int
    mebibytes: float
    #: One image, one core, median; to be held against other variants only.
    milliseconds: float
    #: Bits -> MAP@10 of the queries, macro over all classes of the bar.
    macro_bar: dict[int, float]
    #: The same by cosine of the fused float features; measured once a side.
    float_macro_bar: float | None


@dataclass(frozen=True, slots=True)
class FeatureCodes:
    """Codes of the shipped network's fused features that no hash head made."""

    macro_bar: dict[int, float]
    #: What the network's own codes have more, mean over the lengths, and 95 % of a paired bootstrap
    #: over groups.
    behind: float | None
    interval: tuple[float, float] | None


def main(
    manifest: Annotated[Path, typer.Option(help="CSV with file, class, split.", exists=True)],
    root: Annotated[Path, typer.Option(help="Folder that the files are relative to.", exists=True)],
    version: Annotated[int, typer.Option(help="Model version whose weights to take.")] = 0,
    side: Annotated[list[int] | None, typer.Option(help="Sides in fp32; four of them.")] = None,
    rounds: Annotated[int, typer.Option(help="Images of each time.")] = ROUNDS,
    out: Annotated[Path, typer.Option(help="Folder of the JSON and the picture.")] = OUT,
) -> None:
    """Measure the variants of a published version."""
    settings = ModelSettings()
    run = settings.model_repository / MODEL / str(version or settings.model_version)
    with tempfile.TemporaryDirectory(prefix="dafh-variants-") as name:
        checkpoint = load_checkpoint(run)
        files = _files(checkpoint, run, Path(name), side or SIDES)
        taken = _milliseconds(files, rounds)
        found = [
            _measured(label, file, taken[label], manifest, root, checkpoint.network)
            for label, file in track(files.items(), "measuring", console=Console(stderr=True))
        ]
        plain = _feature_codes(run, manifest, root, checkpoint.network)
    told = json.dumps(
        {
            "version": int(run.name),
            "variants": [asdict(one) for one in found],
            "feature_codes": {name: asdict(one) for name, one in plain.items()},
        },
        indent=2,
    )
    (out / "variants.json").write_text(told + "\n")
    pictures.variants(json.loads(told)["variants"], out / "variants.svg")
    Console().print_json(told)


def _files(
    checkpoint: Checkpoint, run: Path, folder: Path, sides: Sequence[int]
) -> dict[str, Path]:
    """Write the model file of each variant."""
    files: dict[str, Path] = {}
    published = OnnxEncoder.of_file(run / MODEL_FILE).model
    for side in sides:
        model = trace(checkpoint.network, side)
        update = {"side": side, "hash": model_hash(model), "imaging_version": IMAGING_VERSION}
        describe(model, published.model_copy(update=update))
        files[f"fp32 {side}"] = folder / f"{side}.onnx"
        files[f"fp32 {side}"].write_bytes(model.SerializeToString(deterministic=True))
    own = checkpoint.side
    files[f"fp16 {own}"] = put_precision(run / MODEL_FILE, folder, Precision.FP16)
    return files


def _milliseconds(files: dict[str, Path], rounds: int) -> dict[str, float]:
    random = np.random.default_rng(0)
    sessions = {label: open_session(file) for label, file in files.items()}
    images = {
        label: random.integers(0, 256, (1, *session.get_inputs()[0].shape[1:]), dtype=np.uint8)
        for label, session in sessions.items()
    }
    taken: dict[str, list[float]] = {label: [] for label in files}
    for turn in range(WARM_UP + rounds):
        for label, session in sessions.items():
            started = time.perf_counter()
            session.run(None, {IMAGE: images[label]})
            if turn >= WARM_UP:
                taken[label].append(1000 * (time.perf_counter() - started))
    return {label: median(values) for label, values in taken.items()}


def _measured(
    label: str, file: Path, milliseconds: float, manifest: Path, root: Path, network: Dafh
) -> Variant:
    encoder = OnnxEncoder.of_file(file, threads=2)
    splits = encode_manifest(manifest, root, encoder)
    side = encoder.model.side
    ceiling = None
    if label.startswith("fp32"):
        asking, answering = (_fused(network, splits[name], side) for name in ("query", "database"))
        ceiling = _macro_bar(splits, cosine_distances(asking, answering))
    query, database = splits["query"], splits["database"]
    codes = {bits: _macro_bar(splits, by_codes(bits)(query, database)) for bits in BITS}
    return Variant(label, side, file.stat().st_size / 2**20, milliseconds, codes, ceiling)


def _feature_codes(run: Path, manifest: Path, root: Path, network: Dafh) -> dict[str, FeatureCodes]:
    encoder = OnnxEncoder.of_file(run / MODEL_FILE, threads=2)
    splits = encode_manifest(manifest, root, encoder, ("train", "database", "query"))
    features = [_fused(network, rows, encoder.model.side) for rows in splits.values()]
    query, database = splits["query"], splits["database"]
    own = np.mean([_values(splits, by_codes(bits)(query, database)) for bits in BITS], axis=0)
    found = {}
    for name, method in (("itq", itq), ("lsh", lsh)):
        far = {}
        for bits in BITS:
            answering, asking = method(features[0], bits, *features[1:])
            far[bits] = code_distances(asking, answering)
        gap = own - np.mean([_values(splits, one) for one in far.values()], axis=0)
        told = averaged(gap, query.classes, query.groups)
        codes = {bits: _macro_bar(splits, one) for bits, one in far.items()}
        found[name] = FeatureCodes(codes, told.macro_bar, told.macro_bar_interval)
    return found


def _values(splits: dict[str, Rows], distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return AP@10 of each query."""
    asks, answers = splits["query"].classes, splits["database"].classes
    return average_precision(relevance(nearest(distances), asks, answers))


def _macro_bar(splits: dict[str, Rows], distances: NDArray[np.float64]) -> float:
    inside = ~np.isin(splits["query"].classes, OUTSIDE_BAR)
    asks = np.asarray(splits["query"].classes)[inside].tolist()
    return macro_map(distances[inside], asks, splits["database"].classes)


@torch.inference_mode()
def _fused(network: Dafh, rows: Rows, side: int) -> NDArray[np.float32]:
    """Return the fused features of a split, in fp32, ``[N, FUSED]``."""
    images = np.stack(
        [
            decode(entry.file.read_bytes(), side=side, frame=REPRESENTATIVE).pixels
            for entry in rows.entries
        ]
    )
    parts = [
        network(torch.from_numpy(images[start : start + BATCH])).fused.numpy()
        for start in range(0, len(images), BATCH)
    ]
    return np.concatenate(parts)


if __name__ == "__main__":
    typer.run(main)
