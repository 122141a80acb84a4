"""What travels with a model version besides its weights: how far to trust its answers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict


class RelevanceCurve(BaseModel):
    """Logistic curve for one code length: P(relevant) = 1 / (1 + exp(-(a + b * d + c * s)))."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    intercept: float
    #: Per unit of Hamming distance over bits, in [0, 1].
    distance: float
    #: Per unit of score (asymmetric distance), in [0, 1].
    score: float


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

    def probability(self, bits: int, distance: int, score: float) -> float | None:
        """Return the probability that a hit is relevant; ``None`` where none was fitted."""
        curve = self.relevance.get(bits)
        if curve is None:
            return None
        logit = curve.intercept + curve.distance * distance / bits + curve.score * score
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, logit))))

    def in_distribution(self, logits: NDArray[np.float32]) -> bool | None:
        """Say whether ``[classes]`` logits look like a known image; ``None`` where not fitted."""
        if self.out_of_distribution is None:
            return None
        return ood_score(logits) <= self.out_of_distribution.threshold


def ood_score(logits: NDArray[np.float32]) -> float:
    """Return how strange an image is to the network, from its logits ``[classes]``."""
    return -float(logits.max())
