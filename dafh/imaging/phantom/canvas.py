"""Drawing for phantoms: soft-edged organic shapes, textures and noise on a plane of values."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]

#: Share of a variation that a slice has for itself; the rest it shares with its series.
OWN_SHARE = 0.45

#: Harmonics of an outline and their share of its irregularity.
HARMONICS = ((2, 0.45), (3, 0.35), (5, 0.2))


@dataclass(frozen=True, slots=True)
class Geometry:
    """The raster of a phantom."""

    rows: int
    columns: int
    #: Millimetres from row to row, and from column to column.
    row_spacing: float
    column_spacing: float

    def coarser(self, times: int) -> Geometry:
        """Return a raster over the same area with as many times fewer rows and columns."""
        return Geometry(
            self.rows // times,
            self.columns // times,
            self.row_spacing * times,
            self.column_spacing * times,
        )


class Canvas:
    """A plane of values with coordinates: x to the right, y down, the longer side from -1 to 1.

    Parameters
    ----------
    geometry
        The raster.
    shape
        Source of everything that a series has in common: anatomy.
    grain
        Source of what differs from slice to slice: noise, vessels, gas.
    background
        Value to start from.
    """

    def __init__(
        self,
        geometry: Geometry,
        shape: np.random.Generator,
        grain: np.random.Generator,
        background: float = 0.0,
    ) -> None:
        self.shape = shape
        self.grain = grain
        rows, columns = geometry.rows, geometry.columns
        height, width = rows * geometry.row_spacing, columns * geometry.column_spacing
        half = max(height, width) / 2
        # One tilt, shift and zoom for the whole picture: no two patients lie alike.
        angle = shape.uniform(-0.25, 0.25) + grain.uniform(-0.06, 0.06)
        zoom = shape.uniform(0.92, 1.15)
        shift = shape.uniform(-0.06, 0.06, 2)
        x = ((np.arange(columns) + 0.5) * geometry.column_spacing - width / 2) / half * zoom
        y = ((np.arange(rows) + 0.5) * geometry.row_spacing - height / 2) / half * zoom
        self._angle, self._shift, self._across, self._down = angle, shift, x, y
        grid_y, grid_x = np.meshgrid(y, x, indexing="ij")
        self.x: Plane = np.cos(angle) * grid_x + np.sin(angle) * grid_y - shift[0]
        self.y: Plane = np.cos(angle) * grid_y - np.sin(angle) * grid_x - shift[1]
        self.upright: tuple[Plane, Plane] = (grid_x / zoom, grid_y / zoom)
        self.pixel = zoom * min(geometry.row_spacing, geometry.column_spacing) / half
        self.values: Plane = np.full((rows, columns), background, np.float64)

    def near(self, value: float, spread: float) -> float:
        """Return a number within `spread` of `value`, alike throughout a series."""
        shared, own = self.shape.uniform(-spread, spread), self.grain.uniform(-spread, spread)
        return float(value + (1 - OWN_SHARE) * shared + OWN_SHARE * own)

    def chance(self, probability: float) -> bool:
        """Say yes with a probability, the same for the whole series."""
        return bool(self.shape.random() < probability)

    def mask(
        self,
        center: tuple[float, float],
        radii: tuple[float, float],
        *,
        angle: float = 0.0,
        wobble: float = 0.0,
        soft: float = 1.0,
    ) -> Plane:
        """Return the share, 0 to 1, of each pixel that an irregular ellipse covers.

        Parameters
        ----------
        center, radii
            In canvas coordinates.
        angle
            Turn in radians.
        wobble
            Irregularity of the outline, as a share of its radius.
        soft
            Width of the edge in pixels.
        """
        phases = self.shape.uniform(0, 2 * np.pi, len(HARMONICS))
        phases = phases + self.grain.uniform(-1, 1, len(HARMONICS))
        covered = np.zeros_like(self.values)
        reach = max(radii) * (1 + wobble) + soft * self.pixel
        part = self._around(center, reach)
        dx, dy = self.x[part] - center[0], self.y[part] - center[1]
        if not dx.size:
            return covered
        u = (np.cos(angle) * dx + np.sin(angle) * dy) / radii[0]
        v = (np.cos(angle) * dy - np.sin(angle) * dx) / radii[1]
        distance = np.sqrt(u * u + v * v)
        if wobble:
            turn = np.arctan2(v, u)
            outline = sum(
                share * np.sin(order * turn + phase)
                for (order, share), phase in zip(HARMONICS, phases, strict=True)
            )
            distance = distance / (1 + wobble * outline)
        edge = min(radii) / (soft * self.pixel)
        covered[part] = np.clip((1 - distance) * edge + 0.5, 0, 1)
        return covered

    def _around(self, center: tuple[float, float], reach: float) -> tuple[slice, slice]:
        """Return the part of the raster that a circle can touch."""
        x, y = center[0] + self._shift[0], center[1] + self._shift[1]
        across = np.cos(self._angle) * x - np.sin(self._angle) * y
        down = np.sin(self._angle) * x + np.cos(self._angle) * y
        rows = np.searchsorted(self._down, (down - reach, down + reach))
        columns = np.searchsorted(self._across, (across - reach, across + reach))
        return slice(int(rows[0]), int(rows[1])), slice(int(columns[0]), int(columns[1]))

    def fill(self, covered: Plane, value: float | Plane) -> None:
        """Paint `value` over what a mask covers."""
        self.values += covered * (value - self.values)

    def blob(
        self,
        center: tuple[float, float],
        radii: tuple[float, float],
        value: float,
        *,
        angle: float = 0.0,
        wobble: float = 0.0,
        soft: float = 1.0,
        inside: Plane | None = None,
    ) -> Plane:
        """Draw an irregular ellipse, only where `inside` covers; return its mask."""
        covered = self.mask(center, radii, angle=angle, wobble=wobble, soft=soft)
        if inside is not None:
            covered = covered * inside
        self.fill(covered, value)
        return covered

    def field(self, cells: int, *, grain: bool = False) -> Plane:
        """Return a smooth random field, mean 0 and deviation about 1, with `cells` waves a side.

        With `grain` it is the slice's own, else alike throughout a series.
        """
        knots = self.grain.standard_normal((cells + 3, cells + 3))
        if not grain:
            shared = self.shape.standard_normal(knots.shape)
            knots = np.sqrt(1 - OWN_SHARE) * shared + np.sqrt(OWN_SHARE) * knots
        size = (self.values.shape[1], self.values.shape[0])
        return np.asarray(cv2.resize(knots, size, interpolation=cv2.INTER_CUBIC), np.float64)

    def noise(self, deviation: float, blur: float = 0.6) -> Plane:
        """Return noise with the correlation of a reconstruction filter."""
        white = self.grain.standard_normal(self.values.shape)
        smooth = np.asarray(cv2.GaussianBlur(white, (0, 0), blur), np.float64)
        scaled: Plane = smooth * (deviation / max(1e-9, float(smooth.std())))
        return scaled

    def blur(self, sigma: float) -> None:
        """Blur the plane by a Gaussian, `sigma` in pixels."""
        self.values = np.asarray(cv2.GaussianBlur(self.values, (0, 0), sigma), np.float64)
