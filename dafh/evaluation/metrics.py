"""Retrieval metrics under the protocol of the documentation: MAP@10, macro average over classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dafh.codes import HashCode, asymmetric, hamming

TOP = 10


@dataclass(frozen=True, slots=True)
class MeanAveragePrecision:
    """MAP@10 of a set of queries."""

    #: Class -> mean over its queries.
    per_class: dict[str, float]

    @property
    def macro(self) -> float:
        """Mean over classes, each counting the same."""
        return float(np.mean(list(self.per_class.values())))


def average_precision(relevant: Sequence[bool]) -> float:
    """Return AP@10: precision at each relevant rank, averaged over the relevant of the top 10.

    Examples
    --------
    >>> average_precision([True, False, True])
    0.8333333333333333
    >>> average_precision([False])
    0.0
    """
    flags = np.asarray(relevant[:TOP], float)
    if not flags.any():
        return 0.0
    precision = np.cumsum(flags) / np.arange(1, len(flags) + 1)
    return float((precision * flags).sum() / flags.sum())


def mean_average_precision(
    query: NDArray[np.float32],
    query_classes: Sequence[str],
    database: NDArray[np.float32],
    database_classes: Sequence[str],
) -> MeanAveragePrecision:
    """Rank the database for each query and average the precision per class.

    Parameters
    ----------
    query, database
        Hash outputs, float32 ``[N, bits]`` and ``[M, bits]``; the database counts by its signs.
    query_classes, database_classes
        ``N`` and ``M`` class names.

    Returns
    -------
    MeanAveragePrecision
        Ranked by Hamming distance, ties by asymmetric distance, then by position.
    """
    packed = np.packbits(database > 0, axis=1)
    names = np.asarray(database_classes)
    found: dict[str, list[float]] = {}
    for output, own in zip(query, query_classes, strict=True):
        order = np.lexsort((asymmetric(output, packed), hamming(HashCode.of(output), packed)))
        found.setdefault(own, []).append(average_precision((names[order[:TOP]] == own).tolist()))
    return MeanAveragePrecision({name: float(np.mean(values)) for name, values in found.items()})
