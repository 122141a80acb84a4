"""Colour images to grey: the luminance of ITU-R BT.601, which is the Y of DICOM's YBR models.

Taking Y as it is stored saves the conversion to RGB and back, which takes minutes on long
ultrasound clips. Colour models: PS3.3 C.7.6.3.1.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dafh.imaging.elements import DataSet, Tag
from dafh.imaging.lut import Lut, read_lut
from dafh.imaging.notes import Notes
from dafh.imaging.pixels import Photometric, Stored
from dafh.imaging.refusal import photometric_unsupported
from dafh.imaging.values import domain
from dafh.imaging.windows import WHITE

#: Weights of red, green and blue, in thousandths.
LUMINANCE = (299, 587, 114)

#: Least and greatest 8-bit Y of the models that leave headroom.
PARTIAL = (16, 235)

DESCRIPTORS = (
    Tag.RED_PALETTE_DESCRIPTOR,
    Tag.GREEN_PALETTE_DESCRIPTOR,
    Tag.BLUE_PALETTE_DESCRIPTOR,
)
PLAIN = (Tag.RED_PALETTE_DATA, Tag.GREEN_PALETTE_DATA, Tag.BLUE_PALETTE_DATA)
SEGMENTED = (
    Tag.SEGMENTED_RED_PALETTE_DATA,
    Tag.SEGMENTED_GREEN_PALETTE_DATA,
    Tag.SEGMENTED_BLUE_PALETTE_DATA,
)


def colour_to_grey(stored: Stored, data_set: DataSet, notes: Notes) -> NDArray[np.uint8]:
    """Return the luminance of a colour image.

    Parameters
    ----------
    stored
        Stored values of an RGB, YBR or palette image.
    data_set
        Where a palette is.
    notes
        Takes what was done.

    Returns
    -------
    NDArray[np.uint8]
        ``[rows, columns]``.

    Raises
    ------
    InvalidInput
        PHOTOMETRIC_UNSUPPORTED, or DICOM_MALFORMED for a broken palette.
    """
    if stored.values.dtype.kind == "f":
        # PS3.3 C.7.6.24: floating-point pixels are MONOCHROME2.
        raise photometric_unsupported("is a colour model, but the pixels are floating-point")
    if stored.values.dtype.kind == "i" and stored.photometric is not Photometric.PALETTE_COLOR:
        notes.warnings.append("(0028,0103) ignored: colours have no sign")
        stored = Stored(_unsigned(stored.values, stored.bits), stored.bits, stored.photometric)
    match stored.photometric:
        case Photometric.PALETTE_COLOR:
            notes.applied.append("palette to luminance")
            return _palette(stored, data_set)
        case Photometric.RGB:
            notes.applied.append("RGB to luminance")
            return rgb_to_grey(stored.values, stored.bits)
        case Photometric.YBR_ICT | Photometric.YBR_RCT | Photometric.XYB:
            raise photometric_unsupported("is a model of JPEG 2000 or XL, which the pixels are not")
    notes.applied.append("Y of YBR")
    luma = stored.values if stored.values.ndim == 2 else stored.values[..., 0]
    if stored.photometric in (Photometric.YBR_PARTIAL_422, Photometric.YBR_PARTIAL_420):
        scale = 2 ** (stored.bits - 8)
        low, high = PARTIAL[0] * scale, PARTIAL[1] * scale
        return _rounded((luma.astype(np.float64) - low) * (WHITE / (high - low)))
    return to_eight_bits(luma, stored.bits)


def rgb_to_grey(values: NDArray[np.number], bits: int) -> NDArray[np.uint8]:
    """Return the luminance, uint8 ``[rows, columns]``, of unsigned RGB ``[rows, columns, 3]``."""
    wide = np.uint32 if bits <= 16 else np.float64
    weighted: NDArray[Any] = values[..., 0] * wide(LUMINANCE[0])
    weighted += values[..., 1] * wide(LUMINANCE[1])
    weighted += values[..., 2] * wide(LUMINANCE[2])
    if bits == 8:
        weighted += 500
        weighted //= 1000
        return weighted.astype(np.uint8)
    return _rounded(weighted.astype(np.float64) * (WHITE / 1000 / (2**bits - 1)))


def to_eight_bits(values: NDArray[np.number], bits: int) -> NDArray[np.uint8]:
    """Scale unsigned values of so many bits to uint8, white to white."""
    if bits == 8:
        return values.astype(np.uint8)
    return _rounded(values.astype(np.float64) * (WHITE / (2**bits - 1)))


def _unsigned(values: NDArray[np.number], bits: int) -> NDArray[np.number]:
    """Take back the extension of a sign into the bits that are not stored."""
    size = values.dtype.itemsize
    unsigned = values.view(f"u{size}")
    # A stream may have fewer bits than the data set says.
    return np.asarray(unsigned & unsigned.dtype.type(2 ** min(bits, 8 * size) - 1))


def _palette(stored: Stored, data_set: DataSet) -> NDArray[np.uint8]:
    """PS3.3 C.7.6.3.1.5: the three tables have one length and one first input."""
    data = next((tags for tags in (PLAIN, SEGMENTED) if all(tag in data_set for tag in tags)), None)
    if data is None:
        raise photometric_unsupported("is PALETTE COLOR, but a palette is missing")
    red, green, blue = (
        read_lut(
            data_set,
            descriptor,
            tag,
            signed=stored.values.dtype.kind == "i",
            segmented=data is SEGMENTED,
        )
        for descriptor, tag in zip(DESCRIPTORS, data, strict=True)
    )
    if not len(red.entries) == len(green.entries) == len(blue.entries):
        raise photometric_unsupported("is PALETTE COLOR, but its tables differ in length")
    colours = np.stack([red.entries, green.entries, blue.entries])
    weights = np.array(LUMINANCE, np.float64) / 1000
    table = Lut(red.first, weights @ colours, red.bits)
    # Some writers say 16 bits and fill 8.
    peak = 2**8 - 1 if colours.max() <= 2**8 - 1 else 2**16 - 1
    found = domain(stored.values)
    return found.image(_rounded(table(found.stored) * (WHITE / peak)))


def _rounded(grey: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.clip(np.rint(grey), 0, WHITE).astype(np.uint8)
