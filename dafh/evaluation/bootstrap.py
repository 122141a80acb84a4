"""How sure a macro average is: bootstrap over whole groups, within each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
CONFIDENCE = 0.95


def interval(
    values: NDArray[np.float64], classes: Sequence[str], groups: Sequence[str], seed: int = 0
) -> tuple[float, float]:
    """Return the percentile interval of the macro average of `values`.

    Groups (patients, near-duplicates) are drawn with replacement within each class, as many as
    there are: images that a class has of a group come and go together, and no class vanishes. A
    patient whose images are of several classes is drawn for each by itself. A class of one group
    does not vary, so the interval knows nothing of what another patient would have brought.

    Parameters
    ----------
    values
        ``[Q]``, one per query; for a paired comparison of two methods, their differences.
    classes, groups
        ``Q`` names.
    seed
        Of the resampling.
    """
    resampled = macro_resamples(values, classes, groups, seed)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(low), float(high)


def macro_resamples(
    values: NDArray[np.float64], classes: Sequence[str], groups: Sequence[str], seed: int = 0
) -> NDArray[np.float64]:
    """Return the macro average of each of `RESAMPLES` resamples."""
    random = np.random.default_rng(seed)
    own, members = np.asarray(classes), np.asarray(groups)
    means = []
    for name in np.unique(own):
        chosen = own == name
        _, places = np.unique(members[chosen], return_inverse=True)
        sums = np.bincount(places, weights=values[chosen])
        counts = np.bincount(places)
        drawn = random.integers(0, len(sums), (RESAMPLES, len(sums)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    averaged: NDArray[np.float64] = np.mean(means, axis=0)
    return averaged
