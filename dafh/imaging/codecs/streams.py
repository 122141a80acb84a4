"""What every codec checks before it decodes, and how decoded values get their sign."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dafh.imaging.pixels import Photometric, PixelFormat, Stored
from dafh.imaging.refusal import undecodable

Unsigned = NDArray[np.unsignedinteger[Any]]


class Unserved(Exception):  # noqa: N818 - it never leaves this package
    """The stream uses a part of its standard that no codec here has; the text says which."""


def match(form: PixelFormat, rows: int, columns: int, samples: int = 1, precision: int = 1) -> None:
    """Refuse a stream that needs more than the data set promises, before it is decoded.

    Parameters
    ----------
    form
        What the data set promises.
    rows, columns, samples, precision
        What the stream's own header says; precision in bits.

    Raises
    ------
    InvalidInput
        PIXELS_UNDECODABLE.
    """
    if (rows, columns, samples) != (form.rows, form.columns, form.samples):
        raise undecodable(
            f"the stream is {rows} x {columns} x {samples}, "
            f"the data set says {form.rows} x {form.columns} x {form.samples}"
        )
    # A container of one bit stands for what is a byte in memory.
    if precision > max(8, form.allocated):
        raise undecodable(f"the stream has {precision} bit, Bits Allocated is {form.allocated}")


def with_sign(
    values: Unsigned, precision: int, form: PixelFormat, photometric: Photometric
) -> Stored:
    """Give decoded values the sign that `PixelFormat.signed` says they have.

    JPEG, JPEG-LS and JPEG XL streams know no sign; the bits are the same either way.

    Parameters
    ----------
    values
        Containers of 8, 16 or 32 bits; the bits above `precision` are not looked at.
    precision
        Bits of a value by the stream's own word.
    form, photometric
        Of the data set, and of the values.
    """
    size = values.dtype.itemsize
    spare = 8 * size - precision
    signed = values.view(f"i{size}") if form.signed else values
    if spare:
        signed = np.right_shift(np.left_shift(signed, spare), spare)
    return Stored(signed, max(form.stored, precision), photometric)


def shape_of(form: PixelFormat) -> tuple[int, ...]:
    """Return ``(rows, columns)``, with samples where there are several."""
    shape = (form.rows, form.columns, form.samples)
    return shape if form.samples > 1 else shape[:2]
