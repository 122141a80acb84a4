"""Codes from float features without a hash head: ITQ and LSH, which deep hashing must beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ITERATIONS = 50
SEED = 0

Features = NDArray[np.float32]


def itq(train: Features, bits: int, *others: Features) -> list[Features]:
    """Return ITQ codes (Gong & Lazebnik, CVPR 2011, §3): a PCA turned towards the corners.

    Parameters
    ----------
    train
        float32 ``[N, F]``, what the projection is fitted on.
    bits
        Length of the codes, at most ``F``.
    others
        Features to code, ``[M, F]`` each.

    Returns
    -------
    list[NDArray[np.float32]]
        For each of `others`, real values ``[M, bits]`` in [-1, 1] whose signs are the code.
    """
    mean = train.mean(axis=0)
    centred = (train - mean).astype(np.float64)
    axes = np.linalg.eigh(centred.T @ centred).eigenvectors[:, ::-1][:, :bits]
    projected = centred @ axes
    start = np.random.default_rng(SEED).normal(size=(bits, bits))
    turn, _ = np.linalg.qr(start)
    for _ in range(ITERATIONS):
        left, _, right = np.linalg.svd(projected.T @ np.where(projected @ turn > 0, 1.0, -1.0))
        turn = left @ right
    return [_scaled((other - mean) @ axes @ turn) for other in others]


def lsh(train: Features, bits: int, *others: Features) -> list[Features]:
    """Return codes by random hyperplanes through the mean (Charikar, STOC 2002, §3); as `itq`."""
    mean = train.mean(axis=0)
    planes = np.random.default_rng(SEED).normal(size=(train.shape[1], bits))
    return [_scaled((other - mean) @ planes) for other in others]


def _scaled(values: NDArray[np.float64]) -> Features:
    """Bring values into [-1, 1], as a hash output's, so that ties are broken alike."""
    scaled: Features = (values / max(float(np.abs(values).max()), 1e-12)).astype(np.float32)
    return scaled
