"""Fit how far to trust an answer, on held-out images of the training split only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dafh.codes import HashCode, asymmetric, hamming
from dafh.encoding.calibration import (
    Calibration,
    OutOfDistribution,
    RelevanceCurve,
    ood_score,
)
from dafh.evaluation.metrics import TOP

#: Share of known images that may be called strange.
FALSE_ALARMS = 0.05
#: Keeps the curve finite where the sample is separable.
RIDGE = 1e-3
STEPS = 50


def fit(
    hashes: dict[int, NDArray[np.float32]],
    logits: NDArray[np.float32],
    classes: Sequence[str],
    fitted_on: str,
) -> Calibration:
    """Fit the curves and the threshold, each image asking all the others.

    Parameters
    ----------
    hashes
        bits -> float32 ``[N, bits]``, of images that the network was not trained on.
    logits
        float32 ``[N, classes]``.
    classes
        ``N`` class names; a hit is relevant where it is of the query's class.
    fitted_on
        What the images are, for people.
    """
    scores = np.array([ood_score(row) for row in logits])
    return Calibration(
        fitted_on=fitted_on,
        relevance={bits: fit_relevance(outputs, classes) for bits, outputs in hashes.items()},
        out_of_distribution=OutOfDistribution(
            threshold=float(np.quantile(scores, 1 - FALSE_ALARMS))
        ),
    )


def fit_relevance(outputs: NDArray[np.float32], classes: Sequence[str]) -> RelevanceCurve:
    """Fit one length's curve on the top 10 hits of every image, by iterated least squares."""
    names = np.asarray(classes)
    packed = np.packbits(outputs > 0, axis=1)
    bits = outputs.shape[1]
    rows: list[tuple[float, float, float]] = []
    relevant: list[bool] = []
    for query, output in enumerate(outputs):
        distance, score = hamming(HashCode.of(output), packed), asymmetric(output, packed)
        order = np.lexsort((score, distance))
        for hit in order[order != query][:TOP]:
            rows.append((1.0, distance[hit] / bits, score[hit]))
            relevant.append(bool(names[hit] == names[query]))
    intercept, by_distance, by_score = _logistic(np.array(rows), np.array(relevant, float))
    return RelevanceCurve(intercept=intercept, distance=by_distance, score=by_score)


def _logistic(rows: NDArray[np.float64], outcomes: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.zeros(rows.shape[1])
    ridge = RIDGE * len(rows) * np.eye(rows.shape[1])
    ridge[0, 0] = 0
    for _ in range(STEPS):
        expected = 1 / (1 + np.exp(-(rows @ weights)))
        gradient = rows.T @ (outcomes - expected) - ridge @ weights
        curvature = (rows * (expected * (1 - expected))[:, None]).T @ rows + ridge
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(weights)), gradient)
        weights = weights + step
        if np.abs(step).max() < 1e-9:
            break
    return weights
