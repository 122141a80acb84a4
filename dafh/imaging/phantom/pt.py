"""PET phantoms: activity in SUV-like units, before scaling to Bq/ml."""

from __future__ import annotations

import numpy as np

from dafh.imaging.phantom.canvas import Canvas


def whole_body(canvas: Canvas, height: float) -> None:
    """Draw a coronal body; `height` from the back (-1) to the front (1)."""
    tissue = canvas.near(0.9, 0.5)
    broad = canvas.near(0.21, 0.03)
    arms = -0.8 if canvas.chance(0.5) else -0.25
    outline = (
        ((0.0, -0.84), (0.09, 0.11)),
        ((0.0, -0.42), (broad, 0.3)),
        ((0.0, -0.02), (broad * 0.95, 0.25)),
        ((-0.1, 0.5), (0.085, 0.5)),
        ((0.1, 0.5), (0.085, 0.5)),
        ((-broad - 0.07, arms), (0.05, 0.4)),
        ((broad + 0.07, arms), (0.05, 0.4)),
    )
    for center, radii in outline:
        canvas.blob(center, radii, tissue, wobble=0.06)
    for side in (-1, 1):
        canvas.blob((side * broad * 0.5, -0.48), (broad * 0.36, 0.17), tissue * 0.4, wobble=0.1)
        if height < 0.4:
            canvas.blob((side * 0.1, -0.12), (0.035, 0.06), canvas.near(4, 2), angle=side * 0.3)
    canvas.blob((0, -0.86), (0.07, 0.075), canvas.near(8, 2), wobble=0.1)
    canvas.blob((0.05, -0.42), (0.065, 0.06), canvas.near(3.5, 2.5), wobble=0.15)
    canvas.blob((-0.08, -0.22), (0.11, 0.085), canvas.near(2.2, 0.6), wobble=0.2)
    canvas.blob((0, 0.17), (0.05, 0.04), canvas.near(10, 4))
    _lesions(canvas, (0, -0.3), (0.18, 0.4))
    _detect(canvas)


def chest(canvas: Canvas, height: float) -> None:
    """Draw an axial chest; `height` from the diaphragm (-1) to the apices (1)."""
    wide, deep = canvas.near(0.8, 0.08), canvas.near(0.55, 0.08)
    tissue = canvas.near(0.9, 0.2)
    canvas.blob((0, 0), (wide, deep), tissue, wobble=0.06)
    for side in (-1, 1):
        canvas.blob((side * wide * 0.46, 0), (wide * 0.32, deep * 0.65), tissue * 0.35, wobble=0.12)
        canvas.blob((side * (wide + 0.13), 0.05), (0.11, 0.13), tissue, wobble=0.1)
    ring = (canvas.near(0.19, 0.03), canvas.near(0.16, 0.03))
    if height < 0.3:
        canvas.blob((0.12, -0.1), ring, canvas.near(5, 3), wobble=0.1)
        canvas.blob((0.12, -0.1), (ring[0] * 0.5, ring[1] * 0.5), tissue)
    canvas.blob((0, 0.28), (0.1, 0.09), canvas.near(1.8, 0.6), wobble=0.1)
    _lesions(canvas, (0, 0), (0.6, 0.35))
    _detect(canvas)


def _lesions(canvas: Canvas, center: tuple[float, float], spread: tuple[float, float]) -> None:
    for _ in range(1 + int(canvas.grain.integers(7))):
        at = (canvas.near(center[0], spread[0]), canvas.near(center[1], spread[1]))
        radius = canvas.near(0.05, 0.03)
        canvas.blob(at, (radius, radius * canvas.near(1, 0.3)), canvas.near(7, 4), wobble=0.2)


def _detect(canvas: Canvas) -> None:
    """Add what the scanner does: coarse resolution, and noise that grows with activity."""
    canvas.blur(max(1.0, 0.016 / canvas.pixel))
    grain = canvas.noise(1.0, blur=1.2)
    canvas.values = np.maximum(0, canvas.values + grain * 0.09 * np.sqrt(canvas.values + 0.03))
