"""A double for tests: hash outputs from the pixels themselves, faults in a given order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from dafh.codes import BITS
from dafh.deadline import Deadline
from dafh.encoding.port import Encoded, ModelVersion
from dafh.errors import DafhError
from dafh.imaging.image import IMAGING_VERSION

SIDE = 32


class ScriptedEncoder:
    """Projects the pixels onto fixed random directions; raises the scripted faults first.

    Parameters
    ----------
    faults
        What the next calls raise, in order; ``None`` lets one through.
    """

    def __init__(self, faults: Iterable[DafhError | None] = (), side: int = SIDE) -> None:
        self._faults = deque(faults)
        #: Number of calls that were answered.
        self.answered = 0
        self._directions = np.random.default_rng(0).normal(size=(side * side, max(BITS)))
        self._model = ModelVersion(
            version=1,
            hash="0" * 64,
            imaging_version=IMAGING_VERSION,
            side=side,
            bits=BITS,
            classes=("a", "b"),
        )

    @property
    def model(self) -> ModelVersion:
        """A model version that exists nowhere else."""
        return self._model

    def encode(
        self, images: NDArray[np.uint8], deadline: Deadline, *, saliency: bool = False
    ) -> Encoded:
        """Encode uint8 ``[N, 1, S, S]``."""
        deadline.remaining("encoding")
        if self._faults:
            fault = self._faults.popleft()
            if fault is not None:
                raise fault
        self.answered += 1
        flat = images.reshape(len(images), -1).astype(np.float64) / 255 - 0.5
        outputs = np.tanh(flat @ self._directions / 8).astype(np.float32)
        cells = self._model.side // 8
        return Encoded(
            hashes={bits: outputs[:, :bits] for bits in BITS},
            logits=outputs[:, :2],
            saliency=np.full((len(images), cells, cells), 0.5, np.float32) if saliency else None,
        )

    def close(self) -> None:
        """Nothing is held open."""
