"""The evaluation protocol: a manifest's queries ask its database, through imaging and encoder."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dafh.deadline import Deadline
from dafh.encoding.port import Encoder
from dafh.errors import InvalidInput, Reason
from dafh.evaluation.metrics import MeanAveragePrecision, mean_average_precision
from dafh.imaging.decode import REPRESENTATIVE, decode

REQUIRED = ("file", "class", "split")
BATCH = 32


@dataclass(frozen=True, slots=True)
class Split:
    """One side of the protocol."""

    #: bits -> float32 ``[N, bits]``.
    hashes: dict[int, NDArray[np.float32]]
    #: ``N`` class names.
    classes: list[str]


def evaluate(
    manifest: Path,
    root: Path,
    encoder: Encoder,
    bits: Sequence[int],
) -> dict[int, MeanAveragePrecision]:
    """Ask the database with every query.

    Parameters
    ----------
    manifest
        CSV with the columns ``file``, ``class`` and ``split``; rows of the splits ``database`` and
        ``query`` are used.
    root
        Folder that the files are relative to.
    encoder
        The model.
    bits
        Code lengths.

    Returns
    -------
    dict[int, MeanAveragePrecision]
        By code length; ranked by Hamming distance, ties by asymmetric distance.

    Raises
    ------
    InvalidInput
        A column is missing, or a split is empty.
    """
    with manifest.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    missing = [name for name in REQUIRED if rows and name not in rows[0]]
    if missing or not rows:
        raise InvalidInput(
            Reason.ARGUMENT_INVALID,
            f"The manifest lacks {', '.join(missing) or 'rows'}.",
            subject="manifest",
        )
    splits = {
        name: _encode(
            [(root / row["file"], row["class"]) for row in rows if row["split"] == name],
            encoder,
            bits,
        )
        for name in ("database", "query")
    }
    database, query = splits["database"], splits["query"]
    return {
        length: mean_average_precision(
            query.hashes[length], query.classes, database.hashes[length], database.classes
        )
        for length in bits
    }


def _encode(rows: Sequence[tuple[Path, str]], encoder: Encoder, bits: Sequence[int]) -> Split:
    if not rows:
        raise InvalidInput(
            Reason.ARGUMENT_INVALID, "The manifest has no database or no query.", subject="manifest"
        )
    files, classes = zip(*rows, strict=True)
    side = encoder.model.side
    images = [decode(file.read_bytes(), side=side, frame=REPRESENTATIVE).pixels for file in files]
    parts = [
        encoder.encode(np.stack(images[start : start + BATCH]), Deadline.never())
        for start in range(0, len(images), BATCH)
    ]
    hashes = {length: np.concatenate([part.hashes[length] for part in parts]) for length in bits}
    return Split(hashes, list(classes))
