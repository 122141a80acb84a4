"""What travels with a model version besides its weights: how far to trust its answers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

#: First hits that vouch for each other.
NEIGHBOURHOOD = 10


class RelevanceCurve(BaseModel):
    """Logistic curve for one code length: P = 1 / (1 + exp(-(a + b * d + c * s + e * g)))."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    intercept: float
    #: Per unit of Hamming distance over bits, in [0, 1].
    distance: float
    #: Per unit of score (asymmetric distance), in [0, 1].
    score: float
    #: Per unit of `agreement`, in [-1, 1].
    agreement: float = 0.0


class OutOfDistribution(BaseModel):
    """Largest-logit score: ``-max(logits)``; stranger images score higher."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float


class Calibration(BaseModel):
    """Contents of ``calibration.json``; a part that was never fitted is absent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = 1
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

    def in_distribution(self, logits: NDArray[np.float32]) -> bool | None:
        """Say whether ``[classes]`` logits look like a known image; ``None`` where not fitted."""
        if self.out_of_distribution is None:
            return None
        return ood_score(logits) <= self.out_of_distribution.threshold


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


def ood_score(logits: NDArray[np.float32]) -> float:
    """Return how strange an image is to the network, from its logits ``[classes]``."""
    return -float(logits.max())
