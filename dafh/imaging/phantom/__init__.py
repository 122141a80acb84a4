"""Seeded phantoms: valid DICOM instances that look like medical images and belong to nobody.

They let everything be tried anywhere. Every one is marked as synthetic (manufacturer, patient name,
image comments, Patient Identity Removed), and none is ever presented as patient data.
"""

import numpy as np
from numpy.typing import NDArray

from dafh.imaging.decode import decode
from dafh.imaging.phantom.study import Phantom, Place, drawn, phantoms, places

__all__ = ["Phantom", "Place", "drawn", "phantom_images", "phantoms", "places"]


def phantom_images(count: int, seed: int, side: int) -> NDArray[np.uint8]:
    """Return phantoms as the model sees them: uint8 ``[count, 1, side, side]``."""
    images = np.empty((count, 1, side, side), np.uint8)
    for image, phantom in zip(images, phantoms(count, seed), strict=True):
        image[:] = decode(phantom.data, side=side).pixels
    return images
