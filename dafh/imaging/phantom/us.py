"""Ultrasound phantoms: echo brightness, 0 to 255."""

from __future__ import annotations

import cv2
import numpy as np

from dafh.imaging.phantom.canvas import Canvas, Plane


def abdomen(canvas: Canvas, height: float) -> None:
    """Draw a curved-array view of an abdomen: a sector with an organ, vessels and cysts."""
    across, down = canvas.upright
    apex = -1.25 - canvas.near(0.15, 0.1)
    radius = np.sqrt(across**2 + (down - apex) ** 2)
    turn = np.arctan2(across, down - apex)
    shallow, deep = -0.93 - apex, 0.9 - apex
    aperture = canvas.near(0.6, 0.1)
    sector = (radius > shallow) & (radius < deep) & (np.abs(turn) < aperture)
    canvas.values[:] = 95 + 14 * canvas.field(5)
    canvas.blob((canvas.near(0, 0.2), 0.1 + 0.2 * height), (0.6, canvas.near(0.5, 0.1)),
                canvas.near(120, 20), wobble=0.15, soft=6)  # fmt: skip
    shade = np.ones_like(canvas.values)
    for _ in range(1 + int(canvas.shape.integers(4))):
        at = (canvas.near(0, 0.45), canvas.near(0.1, 0.5))
        size = canvas.near(0.14, 0.08)
        cyst = canvas.blob(at, (size, size * canvas.near(0.8, 0.25)), 8, wobble=0.15, soft=2)
        _behind(canvas, shade, at, size, gain=1.35, above=cyst)
    if canvas.chance(0.5):
        at = (canvas.near(0, 0.4), canvas.near(0, 0.4))
        canvas.blob(at, (0.26, 0.13), 60, angle=canvas.near(0, 0.6), wobble=0.1, soft=3)
        canvas.blob(at, (0.14, 0.045), 190, angle=canvas.near(0, 0.6), wobble=0.3, soft=3)
    if canvas.chance(0.4):
        at = (canvas.near(0, 0.4), canvas.near(-0.2, 0.3))
        canvas.blob(at, (0.07, 0.02), 250, wobble=0.3)
        _behind(canvas, shade, at, 0.07, gain=0.25)
    canvas.fill((np.abs(radius - deep * 0.93) < 0.012).astype(float), 230)
    fade = 1.15 - 0.5 * (radius - shallow) / (deep - shallow)
    canvas.values = np.where(sector, canvas.values * _speckle(canvas) * shade * fade, 0)


def breast(canvas: Canvas, height: float) -> None:
    """Draw a linear-array view of a breast: skin, fat, gland and a mass."""
    _, down = canvas.upright
    limit = float(np.abs(down).max()) * 2
    level = (down + limit / 2) / limit
    waves = 0.03 * canvas.field(3)
    canvas.values[:] = 70
    for top, echo in ((0.0, 200), (0.05, 75), (0.28, 135), (0.62, 65), (0.66, 160), (0.7, 85)):
        edge = top + canvas.near(0, 0.04) * (top > 0) + waves
        canvas.fill(np.clip((level - edge) * 60, 0, 1), echo + 12 * canvas.field(6))
    for _ in range(5):
        at = (canvas.near(0, 0.8), canvas.near(-0.2, 0.3) * limit)
        canvas.blob(at, (canvas.near(0.2, 0.1), 0.05), canvas.near(85, 25), wobble=0.3, soft=5)
    shade = np.ones_like(canvas.values)
    at = (canvas.near(0, 0.4), canvas.near(0.02 + 0.08 * height, 0.08) * limit)
    size, rough = canvas.near(0.22, 0.1), canvas.near(0.2, 0.18)
    mass = canvas.blob(at, (size, size * canvas.near(0.7, 0.2)), 22, wobble=rough, soft=3)
    _behind(canvas, shade, at, size * 0.8, gain=0.5 if rough > 0.2 else 1.4, above=mass)
    canvas.values = canvas.values * _speckle(canvas) * shade * (1.2 - 0.5 * level)


def _behind(
    canvas: Canvas,
    shade: Plane,
    at: tuple[float, float],
    size: float,
    *,
    gain: float,
    above: Plane | None = None,
) -> None:
    """Brighten or darken what lies behind something, as sound does."""
    column = np.clip((size - np.abs(canvas.x - at[0])) * 12, 0, 1)
    behind = column * (canvas.y > at[1])
    if above is not None:
        behind = behind * (1 - above)
    shade *= 1 + (gain - 1) * behind


def _speckle(canvas: Canvas) -> Plane:
    """Return fully developed speckle, mean about 1: the envelope of a complex Gaussian field."""
    parts = [canvas.grain.standard_normal(canvas.values.shape) for _ in range(2)]
    real, imaginary = (cv2.GaussianBlur(part, (0, 0), 1.6, sigmaY=0.9) for part in parts)
    envelope = np.sqrt(np.asarray(real * real + imaginary * imaginary, np.float64))
    # Log compression narrows the distribution as a scanner's display does.
    compressed: Plane = (envelope / envelope.mean()) ** 0.55
    return compressed
