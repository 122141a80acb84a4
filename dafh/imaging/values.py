"""Monochrome images: stored values to grey levels.

Stored values -> modality LUT or rescale (PS3.3 C.11.1) -> VOI LUT or window (C.11.2) -> inversion
for MONOCHROME1 (C.7.6.3.1.2). Every step maps one value to one: it runs over the values that can
occur rather than over the pixels, and the pixels look their grey level up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dafh.imaging.elements import DataSet, Tag
from dafh.imaging.lut import Lut, read_lut
from dafh.imaging.notes import Notes, Scopes
from dafh.imaging.pixels import Photometric, Stored, StoredValues
from dafh.imaging.windows import WHITE, VoiFunction, Window, default_window

#: A wider span of stored values is mapped pixel by pixel.
TABLE_SPAN = 2**16

#: Beyond it, either way, a number is taken for damage: sums and products would overflow.
HUGE = 1e100


@dataclass(frozen=True, slots=True)
class Domain:
    """The values that an image is mapped through."""

    #: float64 ``[n]``: stored values.
    stored: NDArray[np.float64]
    #: int64 ``[n]``: pixels that have each.
    counts: NDArray[np.int64]
    #: ``[rows, columns]`` of positions in `stored`; `None` where that is the flat image itself.
    places: NDArray[np.int64] | None
    shape: tuple[int, ...]

    def image(self, greys: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the image ``[rows, columns]`` of the grey levels ``[n]``."""
        return greys.reshape(self.shape) if self.places is None else greys[self.places]


def domain(values: StoredValues) -> Domain:
    """Return the domain of an image ``[rows, columns]``."""
    if values.dtype.kind in "iu":
        low, high = int(values.min()), int(values.max())
        if high - low < TABLE_SPAN:
            places = values.astype(np.int64) - low
            counts = np.bincount(places.ravel(), minlength=high - low + 1)
            stored = np.arange(low, high + 1, dtype=np.float64)
            return Domain(stored, counts, places, values.shape)
    flat = values.astype(np.float64).ravel()
    return Domain(flat, np.ones(flat.size, np.int64), None, values.shape)


def monochrome_to_grey(
    stored: Stored,
    scopes: Scopes,
    notes: Notes,
    *,
    modality: str,
    body_part: str,
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

    Returns
    -------
    NDArray[np.uint8]
        ``[rows, columns]``; padding is black.

    Raises
    ------
    InvalidInput
        DICOM_MALFORMED: a look-up table is broken.
    """
    signed = stored.values.dtype.kind == "i"
    found = domain(stored.values)
    padding = _padding(found.stored, scopes, signed=signed)
    values = np.where(padding, 0.0, found.stored)
    values = _modality(values, scopes, notes, signed=signed)
    counts = np.where(padding, 0, found.counts)
    greys = _voi(values, scopes, notes, signed=signed)
    if greys is None:
        window = default_window(modality, body_part, values, counts)
        notes.applied.append(f"default window {window}")
        greys = window.grey(values)
    if stored.photometric is Photometric.MONOCHROME1:
        notes.applied.append("invert")
        greys = WHITE - greys
    if padding.any() and (found.counts * padding).any():
        notes.applied.append("padding to black")
    greys = np.where(padding, 0.0, greys)
    return found.image(np.rint(greys).astype(np.uint8))


def _padding(stored: NDArray[np.float64], scopes: Scopes, *, signed: bool) -> NDArray[np.bool_]:
    """Say which stored values are no image (PS3.3 C.7.5.1.1.2); NaN and infinity are none."""
    unreal = ~(np.abs(stored) < HUGE)
    data_set = scopes.having(Tag.PIXEL_PADDING_VALUE)
    if Tag.PIXEL_PADDING_VALUE not in data_set:
        return unreal
    value = data_set.integer(Tag.PIXEL_PADDING_VALUE, signed=signed)
    limit = data_set.integer(Tag.PIXEL_PADDING_RANGE_LIMIT, value, signed=signed)
    low, high = min(value, limit), max(value, limit)
    return unreal | ((stored >= low) & (stored <= high))


def _modality(
    values: NDArray[np.float64], scopes: Scopes, notes: Notes, *, signed: bool
) -> NDArray[np.float64]:
    tables = scopes.having(Tag.MODALITY_LUT_SEQUENCE).items(Tag.MODALITY_LUT_SEQUENCE)
    if tables:
        notes.applied.append("modality LUT")
        return read_lut(tables[0], signed=signed)(values)
    slopes = notes.numbers(scopes.having(Tag.RESCALE_SLOPE), Tag.RESCALE_SLOPE)
    intercepts = notes.numbers(scopes.having(Tag.RESCALE_INTERCEPT), Tag.RESCALE_INTERCEPT)
    slope, intercept = (*slopes, 1.0)[0], (*intercepts, 0.0)[0]
    if slope == 0 or abs(slope) > HUGE or abs(intercept) > HUGE:
        notes.warnings.append("(0028,1052) and (0028,1053) ignored: they would erase the image")
        return values
    if (slope, intercept) == (1.0, 0.0):
        return values
    notes.applied.append(f"rescale {slope:g} {intercept:+g}")
    return values * slope + intercept


def _voi(
    values: NDArray[np.float64], scopes: Scopes, notes: Notes, *, signed: bool
) -> NDArray[np.float64] | None:
    """Return grey levels by the file's own VOI LUT or first window; `None` where it has none."""
    tables = scopes.having(Tag.VOI_LUT_SEQUENCE).items(Tag.VOI_LUT_SEQUENCE)
    if tables:
        notes.applied.append("VOI LUT")
        # Inputs are what the modality step gives, which has a sign of its own.
        below_zero = signed or bool((values < 0).any())
        return _full_range(read_lut(tables[0], signed=below_zero), values)
    window = _own_window(scopes.having(Tag.WINDOW_CENTER), notes)
    if window is None:
        return None
    notes.applied.append(f"window {window}")
    return window.grey(values)


def _full_range(table: Lut, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map through a VOI LUT onto the full grey range (PS3.3 C.11.2.1.1)."""
    # Some writers say fewer bits than the entries have.
    peak = max(2.0**table.bits - 1, float(table.entries.max()))
    return table(values) * (WHITE / peak)


def _own_window(data_set: DataSet, notes: Notes) -> Window | None:
    """Return the first window of a data set, `None` where it has none that makes sense."""
    centers = notes.numbers(data_set, Tag.WINDOW_CENTER)
    widths = notes.numbers(data_set, Tag.WINDOW_WIDTH)
    if not centers or not widths:
        return None
    name = data_set.text(Tag.VOI_LUT_FUNCTION) or VoiFunction.LINEAR
    if name not in set(VoiFunction):
        notes.warnings.append("(0028,1056) ignored: an unknown VOI LUT function")
        name = VoiFunction.LINEAR
    window = Window(centers[0], widths[0], VoiFunction(name))
    if not window.valid:
        notes.warnings.append(f"(0028,1051) ignored: a width of {window.width:g} has no meaning")
        return None
    return window
