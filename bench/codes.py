"""Codes to measure with: uniform ones, and as many as wanted of the kind that the model makes.

The corpus gives a few thousand real hash outputs. More are made from them: a hash output of an
image, plus the difference between those of two other images of its class, then the sign. So a made
code keeps the class, and the way in which the bits of one class vary together, that real ones have;
what it cannot have is variety that the corpus does not have.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dafh.deadline import Deadline
from dafh.encoding.onnx import OnnxEncoder
from dafh.imaging.decode import decode
from dafh.settings import ModelSettings

CHECKOUT = Path(__file__).resolve().parent.parent
CORPUS = CHECKOUT.parent / "shared" / "corpus"
CACHE = CHECKOUT / "out" / "bench"
BITS = 64
#: Share of a difference between two images of a class that is added to a third.
SPREAD = 0.5

_BATCH = 32


def corpus_outputs() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the hash outputs float32 ``[N, 64]`` of the corpus and the class ``[N]`` of each.

    The model in the repository makes them; they are kept below ``out/bench``.
    """
    settings = ModelSettings()
    encoder = OnnxEncoder(settings.model_repository, settings.model_version)
    kept = CACHE / f"corpus-{encoder.model.hash[:12]}.npz"
    if not kept.exists():
        with (CORPUS / "manifest.csv").open(newline="") as table:
            rows = list(csv.DictReader(table))
        side, outputs = encoder.model.side, []
        for start in range(0, len(rows), _BATCH):
            files = [CORPUS / row["file"] for row in rows[start : start + _BATCH]]
            pixels = np.stack([decode(f.read_bytes(), side=side).pixels for f in files])
            outputs.append(encoder.encode(pixels, Deadline.never()).hashes[BITS])
        _, classes = np.unique([row["class"] for row in rows], return_inverse=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        np.savez(kept, outputs=np.concatenate(outputs), classes=classes)
    with np.load(kept) as stored:
        return stored["outputs"], stored["classes"]


def kind() -> str:
    """Return "real" where the corpus is, by which such codes are made, else "uniform"."""
    return "real" if CORPUS.is_dir() else "uniform"


def of_kind(kind: str, count: int, seed: int) -> NDArray[np.uint8]:
    """Return packed codes uint8 ``[count, 8]`` of a kind."""
    return real(count, seed) if kind == "real" else uniform(count, seed)


def real(count: int, seed: int) -> NDArray[np.uint8]:
    """Return packed codes uint8 ``[count, 8]`` made from those of the corpus."""
    outputs, classes = corpus_outputs()
    made = [np.packbits(some > 0, axis=1) for some in varied(outputs, classes, count, seed)]
    return np.concatenate(made)


def varied(
    outputs: NDArray[np.float32], classes: NDArray[np.int64], count: int, seed: int
) -> Iterator[NDArray[np.float32]]:
    """Yield `count` vectors in all, made from outputs float32 ``[N, F]`` of classes ``[N]``."""
    random = np.random.default_rng(seed)
    order = np.argsort(classes, kind="stable")
    first = np.searchsorted(classes[order], np.arange(classes.max() + 1))
    size = np.bincount(classes)
    for start in range(0, count, 1 << 18):
        length = min(1 << 18, count - start)
        own = random.integers(len(outputs), size=length)
        kind = classes[own]
        one, other = (
            order[first[kind] + (random.random(length) * size[kind]).astype(np.int64)]
            for _ in range(2)
        )
        yield outputs[own] + SPREAD * (outputs[one] - outputs[other])


def uniform(count: int, seed: int) -> NDArray[np.uint8]:
    """Return packed codes uint8 ``[count, 8]`` of independent fair bits."""
    return np.random.default_rng(seed).integers(256, size=(count, BITS // 8), dtype=np.uint8)


def fingerprint(codes: NDArray[np.uint8]) -> str:
    """Return a short hash of codes, by which two runs can see that they had the same."""
    return hashlib.sha256(codes.tobytes()).hexdigest()[:16]
