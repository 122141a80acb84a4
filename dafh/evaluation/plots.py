"""Pictures of an evaluation: who is taken for whom, precision over recall, a map of the codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from dafh.evaluation.encoded import Rows
from dafh.evaluation.metrics import relevance
from dafh.evaluation.protocol import Distances, Measured, by_codes, by_pixels

RECALLS = np.linspace(0, 1, 21)
#: Neighbours that t-SNE balances; fewer where there are few images.
PERPLEXITY = 30


def draw_all(splits: dict[str, Rows], codes: dict[int, Measured], folder: Path) -> list[Path]:
    """Write the pictures of an evaluation as PNG; return their files.

    The matrix and the map are of the longest code. A picture that would be empty is not drawn: the
    curves where no query's class is in the database, the map where all of that looks the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    longest = max(codes)
    database, query = splits["database"], splits["query"]
    rankings: dict[str, Distances] = {f"{bits} bits": by_codes(bits) for bits in codes}
    pictures = {"neighbours.png": _matrix(codes[longest].neighbours, longest)}
    if set(query.classes) & set(database.classes):
        pictures["precision-recall.png"] = _curves(
            database, query, {**rankings, "pixels": by_pixels}
        )
    if len(np.unique(database.hashes[longest], axis=0)) > 1:
        pictures["codes.png"] = _map(database, longest)
    for name, figure in pictures.items():
        figure.savefig(folder / name, dpi=110)
    return [folder / name for name in pictures]


def _matrix(neighbours: dict[str, dict[str, float]], bits: int) -> Figure:
    asks = list(neighbours)
    answers = sorted({*asks, *(hit for hits in neighbours.values() for hit in hits)})
    shares = np.array([[neighbours[own].get(hit, 0.0) for hit in answers] for own in asks])
    figure = Figure(figsize=(9, 8), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(shares, cmap="viridis", vmin=0, vmax=1)
    axes.set_xticks(range(len(answers)), answers, rotation=90, fontsize=7)
    axes.set_yticks(range(len(asks)), asks, fontsize=7)
    axes.set(xlabel="class of the first ten hits", ylabel="class of the query",
             title=f"Neighbours at {bits} bits")  # fmt: skip
    figure.colorbar(shown, label="share of hits")
    return figure


def precision_over_recall(
    distances: NDArray[np.float64], query: Rows, database: Rows
) -> NDArray[np.float64]:
    """Return the interpolated precision at `RECALLS`, macro average over classes.

    Interpolated: the best precision at that recall or beyond (Manning et al., Introduction to
    Information Retrieval, §8.4). Queries of a class that the database lacks are left out; some must
    be of another.
    """
    order = np.argsort(distances, axis=1, kind="stable")
    relevant = relevance(order, query.classes, database.classes)
    own = np.asarray(query.classes)
    found: dict[str, list[NDArray[np.float64]]] = {}
    for flags, name in zip(relevant, own, strict=True):
        if not flags.any():
            continue
        hits = np.cumsum(flags)
        precision = hits / np.arange(1, len(flags) + 1)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        places = np.searchsorted(hits / hits[-1], RECALLS - 1e-12)
        found.setdefault(str(name), []).append(best[places])
    averaged: NDArray[np.float64] = np.mean(
        [np.mean(curves, axis=0) for curves in found.values()], axis=0
    )
    return averaged


def _curves(database: Rows, query: Rows, rankings: dict[str, Distances]) -> Figure:
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    for name, distances in rankings.items():
        curve = precision_over_recall(distances(query, database), query, database)
        axes.plot(RECALLS, curve, label=name)
    axes.set(xlabel="recall", ylabel="precision", ylim=(0, 1), title="Macro average over classes")
    axes.legend(loc="lower left")
    return figure


def _map(rows: Rows, bits: int) -> Figure:
    """Draw hash outputs in a plane (t-SNE), a colour per class."""
    perplexity = min(PERPLEXITY, max(1, (len(rows.entries) - 1) // 3))
    places = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(
        rows.hashes[bits]
    )
    names = sorted(set(rows.classes))
    own = np.asarray(rows.classes)
    figure = Figure(figsize=(9, 7), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(names):
        axes.scatter(places[own == name, 0], places[own == name, 1], s=6, label=name,
                     color=colormaps["gist_ncar"](number / len(names)))  # fmt: skip
    axes.set(xticks=[], yticks=[], title=f"The database at {bits} bits (t-SNE of hash outputs)")
    figure.legend(loc="outside right upper", fontsize=7, markerscale=2)
    return figure
