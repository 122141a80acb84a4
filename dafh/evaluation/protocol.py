"""The evaluation protocol: who asks whom, what counts as relevant, and how sure the figures are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from dafh.evaluation.bootstrap import interval
from dafh.evaluation.encoded import Rows
from dafh.evaluation.manifest import NO_CANCER
from dafh.evaluation.metrics import (
    SHUFFLES,
    average_precision,
    by_class,
    code_distances,
    cosine_distances,
    macro,
    nearest,
    precision_at,
    relevance,
)

#: Classes that the bar leaves out: so few query groups that one image moves the macro average.
OUTSIDE_BAR = ("ct_lung_normal",)
#: A class with fewer query groups is marked.
FEW_GROUPS = 5
PRECISION_RANKS = (1, 5, 10)

Distances = Callable[[Rows, Rows], NDArray[np.float64]]


class Figures(BaseModel):
    """A quality, by class and on average."""

    model_config = ConfigDict(frozen=True)

    #: ``None`` where there is nobody who may answer.
    macro: float | None
    #: `macro` without `OUTSIDE_BAR`.
    macro_bar: float | None
    per_class: dict[str, float]
    queries: int
    #: 95 % of bootstrap resamples of query groups lie within; ``None`` where not asked for.
    macro_interval: tuple[float, float] | None = None
    macro_bar_interval: tuple[float, float] | None = None


class Measured(BaseModel):
    """One ranking (a code length, or pixels), measured in every way of the protocol."""

    model_config = ConfigDict(frozen=True)

    #: Ranked as served: Hamming distance, ties by asymmetric distance.
    map_at_10: Figures
    #: Ties in random order, averaged over orders.
    hamming_only: Figures | None = None
    #: Rank -> precision.
    precision: dict[int, Figures]
    #: Every database image asks the database without its own group, if anybody is left there.
    wide: Figures
    #: Modality of the query -> figures.
    per_modality: dict[str, Figures] = {}
    #: Organ -> figures where queries and database are of that organ alone.
    hard_sets: dict[str, Figures] = {}
    #: Relevant is who shares the cancer type; averaged over cancer types.
    cancer_type: Figures | None = None
    #: The same where only images of other modalities than the query's may answer.
    cancer_type_across_modalities: Figures | None = None
    #: Class of the query -> class of a hit -> share of the first ten hits.
    neighbours: dict[str, dict[str, float]]


def measure(
    database: Rows, query: Rows, distances: Distances, unordered: Distances | None = None
) -> Measured:
    """Measure one ranking.

    Parameters
    ----------
    database, query
        Who answers and who asks.
    distances
        Ranks: ``[Q, N]`` distances of the first argument's rows to the second's.
    unordered
        The same without a rule for ties, where there is such a thing.
    """
    far = distances(query, database)
    order = nearest(far)
    relevant = relevance(order, query.classes, database.classes)
    return Measured(
        map_at_10=averaged(average_precision(relevant), query.classes, query.groups),
        hamming_only=None if unordered is None else _shuffled(unordered, database, query),
        precision={
            rank: averaged(precision_at(relevant, rank), query.classes) for rank in PRECISION_RANKS
        },
        wide=_wide(distances, database),
        per_modality=_per_modality(relevant, query),
        hard_sets=_hard_sets(far, database, query),
        cancer_type=_cancer_type(far, database, query, across=False),
        cancer_type_across_modalities=_cancer_type(far, database, query, across=True),
        neighbours=_neighbours(order, database, query),
    )


def by_codes(bits: int, *, ties: bool = True) -> Distances:
    """Return the ranking of a code length."""
    return lambda query, database: code_distances(
        query.hashes[bits], database.hashes[bits], ties=ties
    )


def by_pixels(query: Rows, database: Rows) -> NDArray[np.float64]:
    """Rank by correlation of thumbnails: the floor."""
    return cosine_distances(query.thumbnails, database.thumbnails)


def few_groups(query: Rows) -> list[str]:
    """Return the classes whose queries are of fewer than `FEW_GROUPS` groups."""
    groups: dict[str, set[str]] = {}
    for entry in query.entries:
        groups.setdefault(entry.class_name, set()).add(entry.group)
    return sorted(name for name, members in groups.items() if len(members) < FEW_GROUPS)


def averaged(
    values: NDArray[np.float64], classes: Sequence[str], groups: Sequence[str] | None = None
) -> Figures:
    """Average per-query values, or differences of two rankings', over classes.

    Parameters
    ----------
    values
        ``[Q]``.
    classes, groups
        ``Q`` names; without groups there are no intervals.
    """
    per_class = by_class(values, classes)
    barred = {name: value for name, value in per_class.items() if name not in OUTSIDE_BAR}
    inside = ~np.isin(np.asarray(classes, dtype=np.str_), OUTSIDE_BAR)
    figures = Figures(
        macro=macro(per_class) if per_class else None,
        macro_bar=macro(barred or per_class) if per_class else None,
        per_class=per_class,
        queries=len(values),
    )
    if groups is None or not inside.any():
        return figures
    chosen = np.flatnonzero(inside).tolist()
    return figures.model_copy(
        update={
            "macro_interval": interval(values, classes, groups),
            "macro_bar_interval": interval(
                values[chosen], [classes[i] for i in chosen], [groups[i] for i in chosen]
            ),
        }
    )


def _shuffled(unordered: Distances, database: Rows, query: Rows) -> Figures:
    """Average over orders of the database, so that its storage order decides nothing."""
    far, random = unordered(query, database), np.random.default_rng(0)
    total = np.zeros(len(query.entries))
    for _ in range(SHUFFLES):
        turn = random.permutation(len(database.entries))
        classes = np.asarray(database.classes)[turn].tolist()
        total += average_precision(relevance(nearest(far[:, turn]), query.classes, classes))
    return averaged(total / SHUFFLES, query.classes)


def _wide(distances: Distances, database: Rows) -> Figures:
    classes, groups = np.asarray(database.classes), np.asarray(database.groups)
    other = groups[:, None] != groups[None, :]
    # Where all are of one group nobody may answer, and there is nothing to measure.
    asks = np.flatnonzero(other.any(axis=1))
    order = nearest(distances(database, database)[asks], other[asks])
    own = classes[asks].tolist()
    values = average_precision(relevance(order, own, database.classes))
    return averaged(values, own, groups[asks].tolist())


def _per_modality(relevant: NDArray[np.bool_], query: Rows) -> dict[str, Figures]:
    values, modality = average_precision(relevant), query.column("modality")
    classes = np.asarray(query.classes)
    return {
        str(name): averaged(values[modality == name], classes[modality == name].tolist())
        for name in np.unique(modality)
        if name
    }


def _hard_sets(far: NDArray[np.float64], database: Rows, query: Rows) -> dict[str, Figures]:
    """Restrict both sides to one organ with more than one class."""
    asks, answers = query.column("organ"), database.column("organ")
    classes, names = np.asarray(query.classes), np.asarray(database.classes)
    sets: dict[str, Figures] = {}
    for organ in np.unique(asks):
        rows, columns = np.flatnonzero(asks == organ), np.flatnonzero(answers == organ)
        if not organ or len(columns) == 0 or len(np.unique(names[columns])) < 2:
            continue
        own = classes[rows].tolist()
        order = nearest(far[np.ix_(rows, columns)])
        values = average_precision(relevance(order, own, names[columns].tolist()))
        sets[str(organ)] = averaged(values, own)
    return sets


def _cancer_type(
    far: NDArray[np.float64], database: Rows, query: Rows, *, across: bool
) -> Figures | None:
    asks, answers = query.column("cancer_type"), database.column("cancer_type")
    allowed = np.ones(far.shape, bool)
    if across:
        allowed = query.column("modality")[:, None] != database.column("modality")[None, :]
    shared = (asks[:, None] == answers[None, :]) & allowed
    rows = np.flatnonzero(~np.isin(asks, ["", NO_CANCER]) & shared.any(axis=1))
    if len(rows) == 0:
        return None
    order = nearest(far[rows], allowed[rows])
    own = asks[rows].tolist()
    return averaged(average_precision(relevance(order, own, answers.tolist())), own)


def _neighbours(
    order: NDArray[np.int64], database: Rows, query: Rows
) -> dict[str, dict[str, float]]:
    names = np.asarray([*database.classes, ""])
    own = np.asarray(query.classes)
    shares: dict[str, dict[str, float]] = {}
    for name in np.unique(own):
        hits = names[order[own == name]].ravel()
        found, counts = np.unique(hits[hits != ""], return_counts=True)
        shares[str(name)] = {
            str(hit): float(count / counts.sum()) for hit, count in zip(found, counts, strict=True)
        }
    return shares
