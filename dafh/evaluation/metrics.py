"""Retrieval metrics: who ranks first, and how good the first ten are (MAP@10)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TOP = 10
#: Orders of ties over which "Hamming only" is averaged.
SHUFFLES = 16


def average_precision(relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return AP@10: precision at each relevant rank, averaged over the relevant of the top 10.

    Parameters
    ----------
    relevant
        bool ``[Q, ranks]``: for each query, whether the hit at each rank is relevant.

    Returns
    -------
    NDArray[np.float64]
        ``[Q]``; 0 where nothing of the top 10 is relevant.

    Examples
    --------
    >>> average_precision(np.array([[True, False, True], [False, False, False]])).round(3)
    array([0.833, 0.   ])
    """
    flags = relevant[:, :TOP].astype(np.float64)
    precision = np.cumsum(flags, axis=1) / np.arange(1, flags.shape[1] + 1)
    averaged: NDArray[np.float64] = (precision * flags).sum(axis=1) / np.maximum(
        flags.sum(axis=1), 1
    )
    return averaged


def precision_at(relevant: NDArray[np.bool_], rank: int) -> NDArray[np.float64]:
    """Return the share of relevant hits among the first `rank`, float64 ``[Q]``."""
    shares: NDArray[np.float64] = relevant[:, :rank].sum(axis=1) / rank
    return shares


def code_distances(
    query: NDArray[np.float32], database: NDArray[np.float32], *, ties: bool = True
) -> NDArray[np.float64]:
    """Return how far the database's codes are from each query, float64 ``[Q, N]``.

    Parameters
    ----------
    query, database
        Hash outputs, float32 ``[Q, bits]`` and ``[N, bits]``; the database counts by its signs.
    ties
        Add the asymmetric distance, scaled so that it decides between equal Hamming distances only
        (the served ranking); without it, the Hamming distance alone.
    """
    bits = query.shape[1]
    codes = np.where(database > 0, 1.0, -1.0)
    hamming: NDArray[np.float64] = (bits - np.where(query > 0, 1.0, -1.0) @ codes.T) / 2
    if not ties:
        return hamming
    # Rounded as `dafh.codes.asymmetric` rounds, so that both break the same ties.
    score = np.round((1 - query.astype(np.float64) @ codes.T / bits) / 2, 9)
    both: NDArray[np.float64] = hamming + score / 2
    return both


def cosine_distances(
    query: NDArray[np.float32], database: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return one minus the cosine of float vectors ``[Q, F]`` and ``[N, F]``, ``[Q, N]``."""

    def unit(values: NDArray[np.float32]) -> NDArray[np.float64]:
        wide = values.astype(np.float64)
        lengths = np.linalg.norm(wide, axis=1, keepdims=True)
        scaled: NDArray[np.float64] = wide / np.maximum(lengths, 1e-12)
        return scaled

    distances: NDArray[np.float64] = 1 - unit(query) @ unit(database).T
    return distances


def nearest(
    distances: NDArray[np.float64], allowed: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Return the places of each query's first hits, nearest first, int64 ``[Q, at most TOP]``.

    Equal distances keep the order of the database, which must not be sorted by class. What is not
    allowed, bool ``[Q, N]``, is not ranked; where fewer than `TOP` are allowed, the rest of the row
    is -1.
    """
    open_to = distances if allowed is None else np.where(allowed, distances, np.inf)
    order = np.argsort(open_to, axis=1, kind="stable")[:, :TOP]
    ranked = np.take_along_axis(open_to, order, axis=1)
    return np.where(np.isfinite(ranked), order, -1)


def relevance(
    order: NDArray[np.int64], query: Sequence[str], database: Sequence[str]
) -> NDArray[np.bool_]:
    """Return whether each hit is of the query's class, bool ``[Q, ranks]``; -1 is no hit."""
    names = np.asarray([*database, ""], dtype=np.str_)
    own = np.asarray(query, dtype=np.str_)
    relevant: NDArray[np.bool_] = (names[order] == own[:, None]) & (order >= 0)
    return relevant


def by_class(values: NDArray[np.float64], classes: Sequence[str]) -> dict[str, float]:
    """Average per-query values within each class; classes in order of name."""
    own = np.asarray(classes, dtype=np.str_)
    return {str(name): float(values[own == name].mean()) for name in np.unique(own)}


def macro(per_class: dict[str, float]) -> float:
    """Return the mean over classes, each counting the same."""
    return float(np.mean(list(per_class.values())))


def macro_map(
    distances: NDArray[np.float64], query: Sequence[str], database: Sequence[str]
) -> float:
    """Return the macro MAP@10 of a ranking by `distances`, ``[Q, N]``."""
    relevant = relevance(nearest(distances), query, database)
    return macro(by_class(average_precision(relevant), query))
