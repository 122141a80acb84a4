"""The learning rate over a run."""

from __future__ import annotations

import math

LEAST = 0.01  # of the highest


def learning_rate(highest: float, warm_up: float, progress: float) -> float:
    """Return the rate at a share of the run in [0, 1]: a linear rise, then half a cosine down.

    A function of progress alone, so that a run taken up with another number of epochs still ends
    at the lowest rate.

    Examples
    --------
    >>> [round(learning_rate(1.0, 0.1, progress), 3) for progress in (0.05, 0.1, 1.0)]
    [0.5, 1.0, 0.01]
    """
    if progress < warm_up:
        return highest * max(LEAST, progress / warm_up)
    down = (progress - warm_up) / (1 - warm_up)
    return highest * (LEAST + (1 - LEAST) * (1 + math.cos(math.pi * down)) / 2)
