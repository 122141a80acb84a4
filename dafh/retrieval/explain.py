"""What the model looked at, drawn over the query image."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

#: Side of the drawing in pixels, at least: a person looks at it.
SIDE = 512
#: How much of the picture the drawing covers where the model looked most.
OPACITY = 0.5


def explanation(pixels: NDArray[np.uint8], saliency: NDArray[np.float32]) -> bytes:
    """Draw attention over an image: from nothing (not looked at) through yellow to red.

    Parameters
    ----------
    pixels
        uint8 ``[1, S, S]``: the model's input.
    saliency
        float32 ``[S / 8, S / 8]`` in [0, 1].

    Returns
    -------
    bytes
        A PNG picture without any text in it.
    """
    side = max(SIDE, pixels.shape[-1])
    grey = cv2.resize(pixels[0], (side, side), interpolation=cv2.INTER_LINEAR)
    heat = cv2.resize(saliency, (side, side), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    colours = cv2.applyColorMap(np.rint(255 * heat).astype(np.uint8), cv2.COLORMAP_HOT)
    share = (OPACITY * heat)[..., None]
    drawn = (1 - share) * cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR) + share * colours
    return cv2.imencode(".png", np.rint(drawn).astype(np.uint8))[1].tobytes()
