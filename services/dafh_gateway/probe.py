"""What the gateway asks to see whether those it stands on work, and not only answer."""

from __future__ import annotations

import cv2
import numpy as np

from dafh.deadline import Deadline
from dafh.encoding.port import Encoder
from dafh.errors import Internal, Reason

#: Side of the picture below in pixels.
SIDE = 16
#: A picture that every decoder can read.
PICTURE = cv2.imencode(".png", np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE))[
    1
].tobytes()
#: Largest difference between two runs over the same image.
TOLERANCE = 1e-3


def require_sense(encoder: Encoder, deadline: Deadline) -> None:
    """Refuse an encoder that answers and does not compute.

    Two known images must have different hash outputs, and the same ones in either order: a server
    whose tensors are garbled on the way gives every image the same, or none.

    Raises
    ------
    Internal
        It does not compute.
    """
    side = encoder.model.side
    images = np.random.default_rng(0).integers(0, 256, (2, 1, side, side), dtype=np.uint8)
    images[1] //= 8
    there = encoder.encode(images, deadline)
    back = encoder.encode(images[::-1], deadline)
    for bits, outputs in there.hashes.items():
        again = back.hashes[bits][::-1]
        varied = np.ptp(outputs, axis=1).min() > TOLERANCE
        if not varied or np.abs(outputs - again).max() > TOLERANCE or np.array_equal(*outputs):
            raise Internal(Reason.ENCODER_WRONG, "The model server answers, but does not compute.")
