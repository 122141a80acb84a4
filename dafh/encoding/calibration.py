"""What travels with a model version besides its weights: how far to trust its answers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Base64UrlBytes, BaseModel, ConfigDict, FiniteFloat

#: First hits that vouch for each other.
NEIGHBOURHOOD = 10

#: bits -> hash outputs, float32 ``[N, bits]``.
Hashes = Mapping[int, NDArray[np.float32]]


class RelevanceCurve(BaseModel):
    """Logistic curve for one code length: P = 1 / (1 + exp(-(a + b * d + c * s + e * g)))."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    intercept: FiniteFloat
    #: Per unit of Hamming distance over bits, in [0, 1]. It moves with the score, whose weight says
    #: that near hits are the better ones: this one may have either sign.
    distance: FiniteFloat
    #: Per unit of score (asymmetric distance), in [0, 1].
    score: FiniteFloat
    #: Per unit of `agreement`, in [-1, 1].
    agreement: FiniteFloat = 0.0


class OutOfDistribution(BaseModel):
    """How far an image is from what the network learnt from; see `strangeness`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: An image is strange beyond it.
    threshold: FiniteFloat
    #: ``P`` times int8 ``[D]``; ``D`` is the sum of the lengths. In JSON as URL-safe base64.
    #: Versions that were fitted before there were any have none, and `largest_logit` for a score.
    prototypes: tuple[Base64UrlBytes, ...] = ()

    def scores(self, hashes: Hashes) -> NDArray[np.float64]:
        """Return the score of each of ``N`` images; stranger ones score higher."""
        return strangeness(hashes, self._directions)

    @cached_property
    def _directions(self) -> NDArray[np.float32]:
        rows = np.frombuffer(b"".join(self.prototypes), np.int8).astype(np.float32)
        return directions(rows.reshape(len(self.prototypes), -1))


class Calibration(BaseModel):
    """Contents of ``calibration.json``; a part that was never fitted is absent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    #: What it was fitted on, for people.
    fitted_on: str = ""
    #: Code length in bits -> curve.
    relevance: dict[int, RelevanceCurve] = {}
    out_of_distribution: OutOfDistribution | None = None

    def probability(
        self, bits: int, distance: int, score: float, agreement: float = 0.0
    ) -> float | None:
        """Return the probability that a hit is relevant; ``None`` where none was fitted."""
        curve = self.relevance.get(bits)
        if curve is None:
            return None
        logit = curve.intercept + curve.distance * distance / bits + curve.score * score
        logit += curve.agreement * agreement
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, logit))))

    def ood_scores(self, hashes: Hashes, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return how strange each of ``N`` images is, from logits where there is no prototype."""
        fitted = self.out_of_distribution
        return fitted.scores(hashes) if fitted and fitted.prototypes else largest_logit(logits)

    def in_distribution(self, ood_score: float) -> bool | None:
        """Say whether an image of that score is a known kind; ``None`` where none was fitted."""
        if self.out_of_distribution is None:
            return None
        return ood_score <= self.out_of_distribution.threshold


def agreement(labels: Sequence[str]) -> tuple[float, ...]:
    """Return how far each of the first hits is backed by the others.

    Parameters
    ----------
    labels
        Labels of the hits, nearest first, "" where a case has none; at most the first
        `NEIGHBOURHOOD` have a say.

    Returns
    -------
    tuple[float, ...]
        For each hit: others of the neighbourhood that share its label minus those of another
        label, over the size of a full neighbourhood; in [-1, 1], 0 for a hit alone.

    Examples
    --------
    >>> [round(value, 2) for value in agreement(["a", "a", "b"])]
    [0.0, 0.0, -0.22]
    """
    counts = Counter(label for label in labels[:NEIGHBOURHOOD] if label)
    voices = sum(counts.values())
    values = []
    for place, label in enumerate(labels):
        own = 1 if label and place < NEIGHBOURHOOD else 0
        same = counts[label] - own
        values.append((2 * same - (voices - own)) / (NEIGHBOURHOOD - 1))
    return tuple(max(-1.0, min(1.0, value)) for value in values)


def strangeness(hashes: Hashes, prototypes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine distance of each image to the nearest prototype.

    Distance to what was learnt, as Sun et al. (Out-of-Distribution Detection with Deep Nearest
    Neighbors, ICML 2022) measure it, but of hash outputs, and to a few means instead of all images.

    Parameters
    ----------
    hashes
        Hash outputs; the lengths are put in a row, shortest first.
    prototypes
        float32 ``[P, D]``, each of length 1; ``D`` is the sum of the lengths.

    Returns
    -------
    NDArray[np.float64]
        ``[N]``, in [0, 2].
    """
    nearness = directions(in_a_row(hashes)) @ prototypes.T
    far: NDArray[np.float64] = 1 - nearness.max(axis=1).astype(np.float64)
    return far


def in_a_row(hashes: Hashes) -> NDArray[np.float32]:
    """Return the hash outputs of all lengths together, ``[N, D]``, shortest first."""
    return np.concatenate([hashes[bits] for bits in sorted(hashes)], axis=1)


def directions(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows ``[N, D]`` scaled to length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = rows / np.maximum(lengths, np.finfo(np.float32).tiny)
    return scaled


def largest_logit(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how strange ``N`` images are by their logits ``[N, classes]`` alone."""
    scores: NDArray[np.float64] = -logits.max(axis=1).astype(np.float64)
    return scores
