"""Geometry of the model input: crop uniform borders, then letterbox to a square.

The last step of every path into the network, so training, gateway and jobs share it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

#: Grey levels by which a border row or column may vary and still count as padding. JPEG at
#: quality 50 rings by about this much around a flat margin.
BORDER_TOLERANCE = 10
#: A crop that would keep less than this share of a side is not padding but a dark image.
MIN_KEPT = 0.25
#: The brightest grey level.
WHITE = 255


def crop_padding(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut flat borders off a grey image.

    Parameters
    ----------
    grey
        uint8 ``[rows, columns]``.

    Returns
    -------
    NDArray[np.uint8]
        A view of `grey`; `grey` itself where a cut would leave less than `MIN_KEPT` of a side.
    """
    edges = (grey[0], grey[-1]), (grey[:, 0], grey[:, -1])
    row_border, column_border = (_border(np.concatenate(pair)) for pair in edges)
    box = _box(grey, row_border)
    rows = _kept(box[1], box[3], grey.shape[0])
    if column_border != row_border:
        box = _box(grey, column_border)
    columns = _kept(box[0], box[2], grey.shape[1])
    if rows is None or columns is None:
        return grey
    return grey[rows, columns]


def _border(edge: NDArray[np.uint8]) -> tuple[int, int]:
    """Return the darkest and the brightest level that a border like this may have."""
    level = float(np.median(edge))
    return (
        max(0, math.ceil(level - BORDER_TOLERANCE)),
        min(WHITE, math.floor(level + BORDER_TOLERANCE)),
    )


def _box(grey: NDArray[np.uint8], border: tuple[int, int]) -> Sequence[int]:
    """Return left, top, width and height of the rectangle round all that is no border."""
    return cv2.boundingRect(cv2.bitwise_not(cv2.inRange(grey, *border)))


def _kept(start: int, length: int, whole: int) -> slice | None:
    return slice(start, start + length) if length >= max(1, MIN_KEPT * whole) else None


def letterbox(grey: NDArray[np.uint8], side: int, pixel_aspect: float = 1.0) -> NDArray[np.uint8]:
    """Scale a grey image into a square, keeping its proportions; the rest is black.

    Parameters
    ----------
    grey
        uint8 ``[rows, columns]``.
    side
        Side of the square in pixels.
    pixel_aspect
        Height of a pixel over its width (DICOM PS3.3 C.7.6.3.1.7, Pixel Aspect Ratio).

    Returns
    -------
    NDArray[np.uint8]
        uint8 ``[side, side]``.
    """
    rows, columns = grey.shape
    height = rows * pixel_aspect
    scale = side / max(height, columns)
    size = (min(side, max(1, round(columns * scale))), min(side, max(1, round(height * scale))))
    # INTER_AREA averages when it shrinks; it degrades to blocks when it enlarges.
    shrinks = size[0] < columns and size[1] < rows
    scaled = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    square = np.zeros((side, side), np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = scaled
    return square
