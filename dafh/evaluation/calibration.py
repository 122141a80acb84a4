"""Fit how far to trust an answer, on held-out images of the training split only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from dafh.encoding.calibration import (
    Calibration,
    OutOfDistribution,
    RelevanceCurve,
    agreement,
    ood_score,
)
from dafh.evaluation.bootstrap import CONFIDENCE, RESAMPLES
from dafh.evaluation.metrics import TOP, code_distances, nearest

#: Hits of each held-out image that the curves are fitted on. Held-out images are too few to stand
#: for an archive: a class has about a sixth of the images that it has in one of a few thousand, so
#: that ten hits there reach as far as two or three here, and further ones are forced to be wrong.
NEAREST = 3
#: Share of known images that may be called strange.
FALSE_ALARMS = 0.05


def fit(
    hashes: dict[int, NDArray[np.float32]],
    logits: NDArray[np.float32],
    classes: Sequence[str],
    groups: Sequence[str],
    fitted_on: str,
) -> Calibration:
    """Fit the curves and the threshold, each image asking those of other groups.

    Parameters
    ----------
    hashes
        bits -> float32 ``[N, bits]``, of images that the network was not trained on.
    logits
        float32 ``[N, classes]``.
    classes, groups
        ``N`` names; a hit is relevant where it is of the query's class.
    fitted_on
        What the images are, for people.
    """
    own = np.asarray(groups)
    other = own[:, None] != own[None, :]
    return Calibration(
        fitted_on=fitted_on,
        relevance={
            bits: fit_relevance(hits(outputs, outputs, classes, classes, other, first=NEAREST))
            for bits, outputs in hashes.items()
        },
        out_of_distribution=OutOfDistribution(threshold=limit(logits, groups)),
    )


def limit(logits: NDArray[np.float32], groups: Sequence[str]) -> float:
    """Return the score that, `CONFIDENCE` sure, no more than `FALSE_ALARMS` of images exceed.

    The quantile of the images themselves would be exceeded by more of other patients every second
    time. So whole groups are drawn anew, and the limit is one that few of the draws are above.

    Parameters
    ----------
    logits
        float32 ``[N, classes]``, of images that the network was not trained on.
    groups
        ``N`` names: patients, near-duplicates.
    """
    scores = np.array([ood_score(row) for row in logits])
    _, places = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(places == place) for place in range(places.max() + 1)]
    random = np.random.default_rng(0)
    drawn = random.integers(0, len(members), (RESAMPLES, len(members)))
    quantiles = [
        np.quantile(scores[np.concatenate([members[place] for place in row])], 1 - FALSE_ALARMS)
        for row in drawn
    ]
    return float(np.quantile(quantiles, CONFIDENCE))


class Hits:
    """First hits of many queries, one row each: what the curve sees, and what is true.

    Attributes
    ----------
    features
        float64 ``[H, 3]``: distance over bits, score, agreement.
    relevant
        bool ``[H]``.
    """

    def __init__(self, features: NDArray[np.float64], relevant: NDArray[np.bool_]) -> None:
        self.features, self.relevant = features, relevant


def hits(
    query: NDArray[np.float32],
    database: NDArray[np.float32],
    query_classes: Sequence[str],
    database_classes: Sequence[str],
    allowed: NDArray[np.bool_] | None = None,
    first: int = TOP,
) -> Hits:
    """Return the first hits of every query, ranked as served.

    Parameters
    ----------
    query, database
        Hash outputs, float32 ``[Q, bits]`` and ``[N, bits]``.
    query_classes, database_classes
        ``Q`` and ``N`` class names.
    allowed
        bool ``[Q, N]``: who may answer; everybody where absent.
    first
        How many, at most `TOP`.
    """
    bits = query.shape[1]
    far = code_distances(query, database)
    order = nearest(far, allowed)[:, :first]
    features: list[NDArray[np.float64]] = []
    relevant: list[bool] = []
    for row, places in enumerate(order):
        found = places[places >= 0]
        labels = [database_classes[place] for place in found]
        distance = np.floor(far[row, found])
        score = 2 * (far[row, found] - distance)
        features.append(np.stack([distance / bits, score, agreement(labels)], axis=1))
        relevant.extend(label == query_classes[row] for label in labels)
    return Hits(np.concatenate(features), np.array(relevant))


def fit_relevance(given: Hits) -> RelevanceCurve:
    """Fit one length's curve by logistic regression."""
    fitted = LogisticRegression(C=100.0).fit(given.features, given.relevant)
    by_distance, by_score, by_agreement = (float(weight) for weight in fitted.coef_[0])
    return RelevanceCurve(
        intercept=float(fitted.intercept_[0]),
        distance=by_distance,
        score=by_score,
        agreement=by_agreement,
    )
