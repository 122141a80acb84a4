"""Monochrome images: stored values to grey levels.

Stored values -> modality LUT or rescale (PS3.3 C.11.1) -> VOI LUT or window (C.11.2) -> inversion
for MONOCHROME1 (C.7.6.3.1.2). Every step maps one value to one: it runs over the values that can
occur rather than over the pixels, and the pixels look their grey level up.

Overlays and Presentation LUTs of more than a shape are no part of what is shown, nor is a
supplemental palette (C.7.6.19): its colours code a measurement on top of the grey image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dafh.imaging.elements import Tag
from dafh.imaging.lut import read_lut
from dafh.imaging.notes import Notes, Scopes
from dafh.imaging.pixels import Photometric, Stored, StoredValues
from dafh.imaging.suv import suv_factor
from dafh.imaging.voi import Voi, file_voi
from dafh.imaging.windows import WHITE, Unit, percentile_window, preset_window

#: A wider span of stored values is mapped pixel by pixel.
TABLE_SPAN = 2**16

#: Beyond it, either way, a number is taken for damage: sums and products would overflow.
HUGE = 1e100

#: Bytes of a floating-point value -> its padding value and range limit (PS3.3 C.7.6.24).
FLOAT_PADDING = {
    4: (Tag.FLOAT_PADDING_VALUE, Tag.FLOAT_PADDING_RANGE_LIMIT),
    8: (Tag.DOUBLE_FLOAT_PADDING_VALUE, Tag.DOUBLE_FLOAT_PADDING_RANGE_LIMIT),
}
INTEGER_PADDING = (Tag.PIXEL_PADDING_VALUE, Tag.PIXEL_PADDING_RANGE_LIMIT)

#: Rescale Types (0028,1054) of CT that mean Hounsfield units (PS3.3 C.11.1.1.2, C.8.2.1).
HOUNSFIELD = frozenset({"", "HU", "HU_MOD"})

#: Modality and Pixel Intensity Relationship (0028,1040) of X-ray angiography and fluoroscopy whose
#: Modality LUT leads back to the intensity of the beam, for subtraction: it is not for display
#: (PS3.3 C.8.7.1.1.2). dcm4che and Cornerstone leave it out too; DCMTK applies it.
BEAM = {(modality, stored) for modality in ("XA", "RF") for stored in ("LOG", "DISP")}

#: Value 3 of Image Type (0008,0008), PS3.3 C.8.2.1.1.1.
LOCALIZER = "LOCALIZER"

#: Presentation LUT Shape (2050,0020) that agrees with Photometric Interpretation (PS3.3 C.8.11.3).
#: Where they contradict each other, which the standard forbids, the latter counts: every image must
#: have it, while a shape of IDENTITY is often written by rote. Our choice; dcmtk trusts the shape.
SHAPES = {Photometric.MONOCHROME1: "INVERSE", Photometric.MONOCHROME2: "IDENTITY"}


@dataclass(frozen=True, slots=True)
class Domain:
    """The values that an image is mapped through."""

    #: ``[rows, columns]``.
    pixels: StoredValues
    #: float64 ``[n]``: every whole number from the least to the greatest of the pixels, or, where
    #: these are too many or not whole, the pixels themselves.
    stored: NDArray[np.float64]
    #: The least pixel; `None` where `stored` are the pixels themselves.
    first: int | None

    def counts(self) -> NDArray[np.int64]:
        """Return how many pixels have each value, ``[n]``."""
        if self.first is None:
            return np.ones(self.stored.size, np.int64)
        places = self._places()
        # Unsigned differences wrap around, as the low bits do.
        first = self.first % (np.iinfo(places.dtype).max + 1)
        return np.bincount((places - places.dtype.type(first)).ravel(), minlength=self.stored.size)

    def image(self, greys: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the image ``[rows, columns]`` of the grey levels ``[n]``."""
        if self.first is None:
            return greys.reshape(self.pixels.shape)
        places = self._places()
        table = np.zeros(np.iinfo(places.dtype).max + 1, np.uint8)
        # What lies beyond the end of the table begins it: the low bits wrap around.
        start = self.first % table.size
        behind = greys[table.size - start :]
        table[start : start + greys.size] = greys[: table.size - start]
        table[: behind.size] = behind
        return np.asarray(cv2.LUT(places, table), np.uint8)

    def _places(self) -> NDArray[np.unsignedinteger[Any]]:
        """Return the low 8 or 16 bits of the pixels, which tell values of so short a span apart."""
        pixels = np.ascontiguousarray(self.pixels)
        size = min(pixels.itemsize, np.dtype(np.uint16).itemsize)
        return pixels.view(f"u{size}") if pixels.itemsize == size else pixels.astype(f"u{size}")


def domain(pixels: StoredValues) -> Domain:
    """Return the domain of an image ``[rows, columns]``."""
    if pixels.dtype.kind in "iu":
        low, high = int(pixels.min()), int(pixels.max())
        if high - low < TABLE_SPAN:
            return Domain(pixels, np.arange(high - low + 1, dtype=np.float64) + float(low), low)
    # What is no number is told apart later, as padding.
    with np.errstate(invalid="ignore"):
        return Domain(pixels, pixels.astype(np.float64).ravel(), None)


def monochrome_to_grey(
    stored: Stored,
    scopes: Scopes,
    notes: Notes,
    *,
    modality: str,
    body_part: str,
    window: int | str = 1,
) -> NDArray[np.uint8]:
    """Return what a viewer would show.

    Parameters
    ----------
    stored
        Stored values of a MONOCHROME1 or MONOCHROME2 image.
    scopes
        Where the frame's LUTs and windows are.
    notes
        Takes what was done.
    modality, body_part
        As in `Metadata`: they choose the default window.
    window
        Which of the file's VOI LUTs and windows to apply: its number from 1, or its name. If it
        has none such, the first, with a warning.

    Returns
    -------
    NDArray[np.uint8]
        ``[rows, columns]``; padding is black.

    Raises
    ------
    InvalidInput
        DICOM_MALFORMED: the modality LUT is broken, without which values mean nothing.
    """
    found = domain(stored.values)
    padding = _padding(found, scopes, notes)
    values = found.stored if padding is None else np.where(padding, 0.0, found.stored)
    rescaled = _modality(values, stored, scopes, notes, modality)
    values = rescaled.values
    voi: Voi | None = file_voi(scopes, notes, window, signed=rescaled.least < 0)
    if voi is None:
        values, unit = _in_unit(rescaled, scopes, notes, modality)
        voi = preset_window(modality, body_part, unit)
        if voi is None:
            counts = found.counts()
            counts = counts if padding is None else np.where(padding, 0, counts)
            voi = percentile_window(modality, unit, values, counts)
        notes.applied.append(f"default {voi}")
    greys = voi.grey(values)
    if scopes.root.text(Tag.PRESENTATION_LUT_SHAPE) not in ("", SHAPES[stored.photometric]):
        notes.warnings.append("(2050,0020) ignored: (0028,0004) says what is white")
    if stored.photometric is Photometric.MONOCHROME1:
        notes.applied.append("invert")
        greys = WHITE - greys
    levels = np.rint(greys).astype(np.uint8)
    if padding is not None:
        notes.applied.append("padding to black")
        levels[padding] = 0
    return found.image(levels)


def _padding(found: Domain, scopes: Scopes, notes: Notes) -> NDArray[np.bool_] | None:
    """Say which stored values are no image; `None` where no pixel has such a value.

    PS3.3 C.7.5.1.1.2: one value, or a range with both of its limits, which come in any order. NaN
    and infinity are no image either.
    """
    kind, size = found.pixels.dtype.kind, found.pixels.dtype.itemsize
    first, last = FLOAT_PADDING[size] if kind == "f" else INTEGER_PADDING
    data_set = scopes.having(first)
    value = notes.numbers(data_set, first, signed=kind == "i")[:1]
    ends = value and value + notes.numbers(data_set, last, signed=kind == "i")[:1]
    if not ends and kind != "f":
        return None
    padding = np.zeros(found.stored.shape, np.bool_)
    if kind == "f":
        padding |= ~(np.abs(found.stored) < HUGE)
    if ends:
        padding |= (found.stored >= min(ends)) & (found.stored <= max(ends))
    if not padding.any():
        return None
    # The least and the greatest value occur; those between may not.
    sure = found.first is None or padding[0] or padding[-1]
    return padding if sure or found.image(padding.view(np.uint8)).any() else None


@dataclass(frozen=True, slots=True)
class Rescaled:
    """Values after the modality step."""

    #: float64 ``[n]``.
    values: NDArray[np.float64]
    #: The least that stored values of so many bits can give.
    least: float
    #: Rescale Type, or Modality LUT Type; `None` where the file does not say how to rescale.
    kind: str | None


def _modality(
    values: NDArray[np.float64], stored: Stored, scopes: Scopes, notes: Notes, modality: str
) -> Rescaled:
    signed = stored.values.dtype.kind == "i"
    tables = scopes.having(Tag.MODALITY_LUT_SEQUENCE).items(Tag.MODALITY_LUT_SEQUENCE)
    if tables and (modality, scopes.root.text(Tag.PIXEL_INTENSITY_RELATIONSHIP)) in BEAM:
        notes.applied.append("no modality LUT: it is for subtraction")
    elif tables:
        notes.applied.append("modality LUT")
        table = read_lut(tables[0], signed=signed)
        return Rescaled(table(values), 0.0, tables[0].text(Tag.MODALITY_LUT_TYPE) or None)
    least = 0.0 if stored.values.dtype.kind == "u" else -(2.0 ** (stored.bits - 1))
    data_set = scopes.having(Tag.RESCALE_SLOPE, Tag.RESCALE_INTERCEPT)
    slopes = notes.numbers(data_set, Tag.RESCALE_SLOPE)
    intercepts = notes.numbers(data_set, Tag.RESCALE_INTERCEPT)
    if not slopes and not intercepts:
        return Rescaled(values, least, None)
    slope, intercept = (*slopes, 1.0)[0], (*intercepts, 0.0)[0]
    if slope == 0 or abs(slope) > HUGE or abs(intercept) > HUGE:
        notes.warnings.append("(0028,1052) and (0028,1053) ignored: they would erase the image")
        return Rescaled(values, least, None)
    kind = data_set.text(Tag.RESCALE_TYPE)
    if (slope, intercept) == (1.0, 0.0):
        return Rescaled(values, least, kind)
    notes.applied.append(f"rescale {slope:g} {intercept:+g}")
    least = min(end * slope + intercept for end in (least, least + 2.0**stored.bits - 1))
    return Rescaled(values * slope + intercept, least, kind)


def _in_unit(
    rescaled: Rescaled, scopes: Scopes, notes: Notes, modality: str
) -> tuple[NDArray[np.float64], Unit]:
    """Return values for a default window, and what they count."""
    if rescaled.kind is None:
        return rescaled.values, Unit.OTHER
    match modality:
        case "PT":
            factor = suv_factor(scopes.root, notes)
            if factor is not None:
                notes.applied.append("SUV")
                return rescaled.values * factor, Unit.SUV
        case "CT":
            # PS3.3 C.8.2.1: Hounsfield units unless a Rescale Type says otherwise; those of a
            # localizer are no absorption of one place.
            localizer = LOCALIZER in scopes.root.texts(Tag.IMAGE_TYPE)[2:3]
            if rescaled.kind in HOUNSFIELD and not localizer:
                return rescaled.values, Unit.HOUNSFIELD
    return rescaled.values, Unit.OTHER
