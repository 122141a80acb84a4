"""Fit how far to trust an answer, on images of the training split only."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from dafh.encoding.calibration import (
    Calibration,
    Hashes,
    OutOfDistribution,
    RelevanceCurve,
    agreement,
    directions,
    in_a_row,
    strangeness,
)
from dafh.errors import InvalidInput, Reason
from dafh.evaluation.bootstrap import CONFIDENCE, RESAMPLES
from dafh.evaluation.encoded import Rows
from dafh.evaluation.metrics import TOP, code_distances, nearest

#: Hits of each held-out image that the curves are fitted on. Held-out images are too few to stand
#: for an archive: a class has about a sixth of the images that it has in one of a few thousand, so
#: that ten hits there reach as far as two or three here, and further ones are forced to be wrong.
#: Chosen after ten had given large errors on the corpus's queries (docs/model-card.md, Trust).
NEAREST = 3
#: What weights may be, the smaller the less: `C` of the logistic regression.
STRENGTHS = tuple(10.0**power for power in np.arange(-4, 2, 0.1).tolist())
#: Parts that held-out groups are cut into to choose among them.
FOLDS = 10
#: Prototypes of each class. On seven of the eight networks that never saw some classes, four find
#: as many of those as all the images they stand for, and more than one does; without CT fewer.
PROTOTYPES = 4
#: Share of known images that may be called strange.
FALSE_ALARMS = 0.05


def fit(learnt: Rows, held: Rows, fitted_on: str) -> Calibration:
    """Fit all of it.

    Parameters
    ----------
    learnt
        Images that the network was trained on.
    held
        Images that it was not; each asks those of other groups, and a hit is relevant where it is
        of the query's class.
    fitted_on
        What the images are, for people.

    Raises
    ------
    InvalidInput
        They are too few.
    """
    if not learnt.entries or not held.entries:
        raise InvalidInput(
            Reason.ARGUMENT_INVALID,
            f"{len(learnt.entries)} images were learnt from and {len(held.entries)} held out: "
            "there must be some of both.",
            remedy="Name the manifest that the run was trained on; a class has two groups or more.",
            subject="manifest",
        )
    own = np.asarray(held.groups)
    other = own[:, None] != own[None, :]
    classes = held.classes
    curve = fit_relevance(
        [
            hits(outputs, outputs, classes, classes, other, first=NEAREST)
            for outputs in held.hashes.values()
        ],
        held.groups,
    )
    return Calibration(
        fitted_on=fitted_on,
        relevance=dict.fromkeys(held.hashes, curve),
        out_of_distribution=_fit_strangeness_of(learnt, held),
    )


def _fit_strangeness_of(learnt: Rows, held: Rows) -> OutOfDistribution:
    # A class of a single group is held out whole: to the network, its images are strangers.
    known = np.flatnonzero(np.isin(held.classes, learnt.classes))
    return fit_strangeness(
        learnt.hashes,
        learnt.classes,
        {bits: outputs[known] for bits, outputs in held.hashes.items()},
        [held.groups[place] for place in known],
    )


def fit_strangeness(
    learnt: Hashes, classes: Sequence[str], held: Hashes, groups: Sequence[str]
) -> OutOfDistribution:
    """Fit prototypes on images that a network was trained on, the threshold on held-out ones.

    Parameters
    ----------
    learnt, held
        Hash outputs of ``N`` and ``M`` images.
    classes
        ``N`` class names.
    groups
        ``M`` names: patients, near-duplicates.
    """
    drawn = prototypes(learnt, classes)
    scores = strangeness(held, directions(drawn.astype(np.float32)))
    return OutOfDistribution(
        threshold=limit(scores, groups),
        prototypes=tuple(base64.urlsafe_b64encode(one.tobytes()) for one in drawn),
    )


def prototypes(learnt: Hashes, classes: Sequence[str]) -> NDArray[np.int8]:
    """Return what is typical of each class, `PROTOTYPES` times, by k-means; ``[P, D]``."""
    rows, names = directions(in_a_row(learnt)), np.asarray(classes)
    means = []
    for name in np.unique(names):
        own = rows[names == name]
        many = min(PROTOTYPES, len(np.unique(own, axis=0)))
        clusters = KMeans(many, n_init=3, random_state=0)
        means.append(clusters.fit(own).cluster_centers_)
    every = np.concatenate(means)
    # One of any length serves: only its direction counts.
    scaled = every / np.abs(every).max(axis=1, keepdims=True)
    drawn: NDArray[np.int8] = np.round(scaled * np.iinfo(np.int8).max).astype(np.int8)
    return drawn


def limit(scores: NDArray[np.float64], groups: Sequence[str]) -> float:
    """Return a score that hardly more than `FALSE_ALARMS` of images exceed.

    The quantile of the images themselves would be exceeded by more of other patients every second
    time. So whole groups are drawn anew, and the limit is the upper `CONFIDENCE` bound over the
    draws. It knows only of patients like those held out: others exceed it more often.

    Parameters
    ----------
    scores
        Out-of-distribution scores ``[N]`` of images that the network was not trained on.
    groups
        ``N`` names: patients, near-duplicates.
    """
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
    queries
        int64 ``[H]``: place of each hit's query.
    """

    def __init__(
        self,
        features: NDArray[np.float64],
        relevant: NDArray[np.bool_],
        queries: NDArray[np.int64],
    ) -> None:
        self.features, self.relevant, self.queries = features, relevant, queries


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
    asked: list[int] = []
    for row, places in enumerate(order):
        found = places[places >= 0]
        labels = [database_classes[place] for place in found]
        distance = np.floor(far[row, found])
        score = 2 * (far[row, found] - distance)
        features.append(np.stack([distance / bits, score, agreement(labels)], axis=1))
        relevant.extend(label == query_classes[row] for label in labels)
        asked.extend([row] * len(labels))
    return Hits(np.concatenate(features), np.array(relevant), np.array(asked))


def fit_relevance(lengths: Sequence[Hits], groups: Sequence[str]) -> RelevanceCurve:
    """Fit one curve to the hits of all code lengths, by logistic regression.

    What the curve sees is relative to the length, and one curve is steadier than one for each. How
    much its weights are kept small is decided by what they say of groups they were not fitted on.

    Parameters
    ----------
    lengths
        Hits of the same queries, at each length.
    groups
        Of each query.

    Raises
    ------
    InvalidInput
        All hits are relevant, or none is.
    """
    relevant = np.concatenate([one.relevant for one in lengths])
    if len(np.unique(relevant)) < 2:
        raise InvalidInput(
            Reason.ARGUMENT_INVALID,
            "The held-out images do not tell a relevant hit from another: each asks those of "
            "other groups, and " + ("all" if relevant.any() else "none") + " are relevant.",
            remedy="Train anew and hold out more (`validation` in the recipe): two groups of one "
            "class at least, and two classes.",
            subject="run",
        )
    features = np.concatenate([one.features for one in lengths])
    scale = StandardScaler().fit(features)
    seen = scale.transform(features)
    asked = np.asarray(groups)[np.concatenate([one.queries for one in lengths])]
    parts = list(GroupKFold(min(FOLDS, len(set(asked)))).split(seen, relevant, asked))
    strength = min(STRENGTHS, key=lambda one: _unseen_loss(one, seen, relevant, parts))
    fitted = LogisticRegression(C=strength).fit(seen, relevant)
    weights = fitted.coef_[0] / scale.scale_
    by_distance, by_score, by_agreement = (float(weight) for weight in weights)
    return RelevanceCurve(
        intercept=float(fitted.intercept_[0] - weights @ scale.mean_),
        distance=by_distance,
        score=by_score,
        agreement=by_agreement,
    )


def _unseen_loss(
    strength: float,
    features: NDArray[np.float64],
    relevant: NDArray[np.bool_],
    parts: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> float:
    """Return the log loss of each part by a curve that was fitted on the others."""
    loss = 0.0
    for others, part in parts:
        if len(np.unique(relevant[others])) == 2:
            fitted = LogisticRegression(C=strength).fit(features[others], relevant[others])
            stated = fitted.predict_proba(features[part])
            loss += float(log_loss(relevant[part], stated, normalize=False, labels=[False, True]))
    return loss
