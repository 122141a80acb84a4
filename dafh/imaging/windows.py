"""From values to grey levels: windows, and which one to take when the file names none.

VOI functions: PS3.3 C.11.2.1.2 and C.11.2.1.3. The standard has no default window: those here are
our choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

#: The brightest grey level.
WHITE = 255.0


class VoiFunction(StrEnum):
    """VOI LUT Function (0028,1056)."""

    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"


#: Smallest width with a meaning: PS3.3 C.11.2.1.2.1 asks for 1 or more, the others for more than 0.
NARROWEST = {
    VoiFunction.LINEAR: 1.0,
    VoiFunction.LINEAR_EXACT: float(np.finfo(np.float64).tiny),
    VoiFunction.SIGMOID: float(np.finfo(np.float64).tiny),
}


@dataclass(frozen=True, slots=True)
class Window:
    """A range of values to show."""

    center: float
    width: float
    function: VoiFunction = VoiFunction.LINEAR

    @property
    def valid(self) -> bool:
        """Whether the standard gives the window a meaning."""
        return bool(np.isfinite(self.center)) and self.width >= NARROWEST[self.function]

    def grey(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return grey levels 0 to 255, not rounded, of values of any shape."""
        # A hair-thin window overflows to infinity, which is clipped like any other value.
        with np.errstate(over="ignore"):
            return _FUNCTIONS[self.function](values, self.center, self.width)

    def __str__(self) -> str:
        kind = "" if self.function is VoiFunction.LINEAR else f" {self.function.value}"
        return f"window {self.center:g}/{self.width:g}{kind}"


def _linear(values: NDArray[np.float64], center: float, width: float) -> NDArray[np.float64]:
    """PS3.3 C.11.2.1.2.1; a width of 1 is a threshold."""
    if width == 1:
        return np.where(values > center - 0.5, WHITE, 0.0)
    return np.clip(((values - (center - 0.5)) / (width - 1) + 0.5) * WHITE, 0.0, WHITE)


def _linear_exact(values: NDArray[np.float64], center: float, width: float) -> NDArray[np.float64]:
    """PS3.3 C.11.2.1.3.2."""
    return np.clip(((values - center) / width + 0.5) * WHITE, 0.0, WHITE)


def _sigmoid(values: NDArray[np.float64], center: float, width: float) -> NDArray[np.float64]:
    """PS3.3 C.11.2.1.3.1; the exponent is bounded, where the result is flat anyway."""
    return WHITE / (1 + np.exp(np.clip(-4 * (values - center) / width, -500, 500)))


_FUNCTIONS = {
    VoiFunction.LINEAR: _linear,
    VoiFunction.LINEAR_EXACT: _linear_exact,
    VoiFunction.SIGMOID: _sigmoid,
}


class Unit(StrEnum):
    """What rescaled values count, as far as a default window depends on it."""

    HOUNSFIELD = "HU"
    #: Standardised uptake values.
    SUV = "SUV"
    OTHER = ""


SOFT_TISSUE = Window(40, 400)
BONE = Window(400, 1800)
BRAIN = Window(40, 80)

#: Modality and unit -> Body Part Examined -> window; "" for every other body part. The usual
#: presets of a reading room.
DEFAULT_WINDOWS: dict[tuple[str, Unit], dict[str, Window]] = {
    ("CT", Unit.HOUNSFIELD): {
        "": SOFT_TISSUE,
        "HEAD": BRAIN,
        "BRAIN": BRAIN,
        "SKULL": BONE,
        "LUNG": Window(-600, 1500),
        "ANKLE": BONE,
        "CSPINE": BONE,
        "ELBOW": BONE,
        "FOOT": BONE,
        "HAND": BONE,
        "HIP": BONE,
        "KNEE": BONE,
        "LSPINE": BONE,
        "SHOULDER": BONE,
        "SPINE": BONE,
        "TSPINE": BONE,
        "WRIST": BONE,
    },
}

#: Share of the pixels that may be clipped at either end where a modality has no fixed window:
#: values of MR, PET, ultrasound and mammography have no unit in common.
CLIPPED_PERCENT = 1.0

#: Modalities whose zero means that there is nothing: it is black.
BLACK_AT_ZERO = frozenset({"PT"})

#: Unit -> the least value that may be white. A slice without uptake is to stay dark, not to show
#: its noise; a liver has an SUV of about 2.5.
LEAST_WHITE = {Unit.SUV: 2.5}


def preset_window(modality: str, body_part: str, unit: Unit) -> Window | None:
    """Return the window for an image that names none, by what it shows; `None` if there is none.

    Parameters
    ----------
    modality, body_part
        As in `Metadata`.
    unit
        Of the values.
    """
    parts = DEFAULT_WINDOWS.get((modality, unit))
    return None if parts is None else parts.get(body_part, parts[""])


def percentile_window(
    modality: str, unit: Unit, values: NDArray[np.float64], counts: NDArray[np.int64]
) -> Window:
    """Return the window for an image that names none, by its values.

    Parameters
    ----------
    modality
        As in `Metadata`.
    unit
        Of the values.
    values
        float64 ``[n]``: the values that occur, in any order.
    counts
        int64 ``[n]``: how often each does.

    Returns
    -------
    Window
        From the 1st percentile (or zero) to the 99th, else (most of the image being one value)
        from the least to the greatest value; at least a hair wide.
    """
    low, high = percentiles(values, counts, (CLIPPED_PERCENT, 100 - CLIPPED_PERCENT))
    if modality in BLACK_AT_ZERO:
        low, high = 0.0, max(high, LEAST_WHITE.get(unit, high))
    if high <= low:
        low, high = percentiles(values, counts, (0, 100))
    # A uniform image is shown at mid-grey.
    width = high - low if high > low else 1.0
    return Window(low + (high - low) / 2, width, VoiFunction.LINEAR_EXACT)


def percentiles(
    values: NDArray[np.float64], counts: NDArray[np.int64], percents: tuple[float, ...]
) -> tuple[float, ...]:
    """Return the least values that at least so many percent of the pixels do not exceed."""
    present = counts > 0
    if not present.any():
        return (0.0,) * len(percents)
    values, counts = values[present], counts[present]
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(counts[order])
    ranks = [percent / 100 * int(reached[-1]) for percent in percents]
    positions = np.minimum(np.searchsorted(reached, ranks), len(order) - 1)
    return tuple(float(values[order[position]]) for position in positions)
