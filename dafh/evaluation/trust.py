"""Whether what the model says of its own answers is true: probabilities, and strangeness."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from sklearn.metrics import roc_auc_score

from dafh.encoding.calibration import Calibration
from dafh.evaluation.calibration import hits
from dafh.evaluation.encoded import Rows

BINS = 10


class Probabilities(BaseModel):
    """Quality of the probability that a hit is relevant, over the first ten hits of the queries."""

    model_config = ConfigDict(frozen=True)

    #: Mean gap between stated and true share, over `BINS` bins of equal width, by their size.
    expected_calibration_error: float
    #: Share of the base rate's Brier score that is saved; 0 is no better than the base rate.
    brier_skill: float
    #: Of relevant against other hits; ``None`` where all are the same.
    auroc: float | None
    base_rate: float


class Strangeness(BaseModel):
    """Quality of the out-of-distribution score between known and strange images."""

    model_config = ConfigDict(frozen=True)

    auroc: float
    #: Share of the strange beyond the threshold.
    detected: float
    #: Share of the known beyond the threshold.
    false_alarms: float
    strangers: int


def judge_probabilities(
    database: Rows, query: Rows, bits: int, calibration: Calibration
) -> Probabilities | None:
    """Judge the probabilities of a code length; ``None`` where none are fitted or nobody answers.

    Where both are the same rows, each asks those of other groups.
    """
    if bits not in calibration.relevance:
        return None
    allowed = None
    if query is database:
        groups = np.asarray(database.groups)
        allowed = groups[:, None] != groups[None, :]
    found = hits(
        query.hashes[bits], database.hashes[bits], query.classes, database.classes, allowed
    )
    if not len(found.relevant):
        return None
    stated = np.array(
        [
            calibration.probability(bits, round(distance * bits), score, backed)
            for distance, score, backed in found.features
        ],
        dtype=np.float64,
    )
    true = found.relevant.astype(np.float64)
    base = float(true.mean())
    spread = base * (1 - base)
    return Probabilities(
        expected_calibration_error=calibration_error(stated, true),
        brier_skill=1 - float(((stated - true) ** 2).mean()) / spread if spread else 0.0,
        auroc=float(roc_auc_score(true, stated)) if spread else None,
        base_rate=base,
    )


def calibration_error(stated: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Return the expected calibration error (Guo et al., ICML 2017, §2).

    Examples
    --------
    >>> calibration_error(np.array([0.75] * 4), np.array([1.0, 1.0, 1.0, 0.0]))
    0.0
    """
    places = np.minimum((stated * BINS).astype(int), BINS - 1)
    gaps = [
        abs(float((stated[places == place] - true[places == place]).sum())) for place in range(BINS)
    ]
    return sum(gaps) / len(stated)


def judge_strangeness(
    known: NDArray[np.float64], strange: NDArray[np.float64], threshold: float
) -> Strangeness:
    """Judge out-of-distribution scores of two sets of images, ``[N]`` and ``[M]``."""
    truth = np.concatenate([np.zeros(len(known)), np.ones(len(strange))])
    return Strangeness(
        auroc=float(roc_auc_score(truth, np.concatenate([known, strange]))),
        detected=float((strange > threshold).mean()),
        false_alarms=float((known > threshold).mean()),
        strangers=len(strange),
    )
