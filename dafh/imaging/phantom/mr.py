"""MR phantoms: signal without unit, about 0 to 1000."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dafh.imaging.phantom.canvas import Canvas


@dataclass(frozen=True, slots=True)
class Contrast:
    """Signals of tissues in one weighting."""

    fat: float
    muscle: float
    marrow: float
    fluid: float
    white_matter: float
    grey_matter: float
    lesion: float


T1 = Contrast(850, 320, 700, 110, 640, 470, 820)
T2 = Contrast(600, 220, 420, 950, 300, 470, 780)


def brain(canvas: Canvas, height: float, contrast: Contrast) -> None:
    """Draw an axial brain; `height` from the pons (-1) to the vertex (1)."""
    size = 0.95 - 0.25 * max(0.0, height) ** 2
    wide, long = canvas.near(0.66, 0.06) * size, canvas.near(0.8, 0.06) * size
    canvas.blob((0, 0), (wide + 0.12, long + 0.11), contrast.fat, wobble=0.03)
    canvas.blob((0, 0), (wide + 0.06, long + 0.06), 40, wobble=0.03)
    inside = canvas.blob((0, 0), (wide, long), contrast.fluid, wobble=0.03)
    folds = np.abs(canvas.field(16) + 0.6 * canvas.field(9, grain=True))
    depth = np.sqrt((canvas.x / wide) ** 2 + (canvas.y / long) ** 2)
    cortex = canvas.mask((0, 0), (wide - 0.02, long - 0.02), wobble=0.03) * inside
    cortex = cortex * np.clip(4 * folds + 14 * (0.93 - depth), 0, 1)
    canvas.fill(cortex, contrast.grey_matter)
    core = np.clip(6 * (0.62 + 0.32 * np.minimum(folds, 1) - depth), 0, 1) * cortex
    canvas.fill(core, contrast.white_matter)
    canvas.blob((0, 0), (0.012, long), contrast.fluid, inside=inside)
    open_ = canvas.near(0.065, 0.035) * (1.3 - abs(height))
    for side in (-1, 1):
        lean = side * canvas.near(0.25, 0.12)
        canvas.blob((side * 0.2, 0.02), (0.09, 0.14), contrast.grey_matter, angle=lean,
                    wobble=0.15, soft=3, inside=inside)  # fmt: skip
        canvas.blob((side * (0.05 + open_), -0.08), (open_, canvas.near(0.28, 0.07)),
                    contrast.fluid, angle=-lean, wobble=0.25, inside=inside)  # fmt: skip
    for _ in range(int(canvas.shape.integers(0, 3))):
        at = (canvas.near(0, 0.38), canvas.near(0, 0.45))
        radius = canvas.near(0.15, 0.07)
        canvas.blob(at, (radius * 1.5, radius * 1.4), contrast.fluid * 0.4 + 250, wobble=0.3,
                    soft=8, inside=inside)  # fmt: skip
        canvas.blob(at, (radius, radius), contrast.lesion, wobble=0.3, inside=inside)
        canvas.blob(at, (radius * 0.6, radius * 0.6), contrast.fluid, wobble=0.4, inside=inside)
    _receive(canvas)


def knee(canvas: Canvas, height: float, contrast: Contrast) -> None:
    """Draw a sagittal knee; `height` from the medial (-1) to the lateral side (1)."""
    joint = canvas.near(0.05, 0.16)
    swell = 1 - 0.25 * height * height
    canvas.blob((0, 0), (canvas.near(0.62, 0.06), 1.6), contrast.fat, wobble=0.05)
    for at, radii in (
        ((0.33, -0.5), (canvas.near(0.22, 0.08), 0.7)),
        ((0.36, 0.6), (canvas.near(0.2, 0.08), 0.55)),
        ((-0.42, -0.75), (canvas.near(0.12, 0.06), 0.4)),
    ):
        canvas.blob(at, radii, contrast.muscle, angle=canvas.near(0, 0.2), wobble=0.2, soft=2)
    if canvas.chance(0.5):
        pouch = (canvas.near(0.16, 0.06), canvas.near(0.3, 0.15))
        canvas.blob((-0.33, canvas.near(-0.5, 0.25)), pouch, contrast.fluid, wobble=0.3, soft=2)
    bones = (
        ((0.0, joint - 0.38), (0.36 * swell, 0.33)),
        ((canvas.near(-0.05, 0.14), joint - 0.85), (canvas.near(0.22, 0.05), 0.55)),
        ((0.02, joint + 0.36), (0.35 * swell, 0.27)),
        ((canvas.near(0, 0.16), joint + 0.85), (canvas.near(0.2, 0.05), 0.55)),
        ((canvas.near(-0.5, 0.05), joint - canvas.near(0.4, 0.14)), (0.1, canvas.near(0.19, 0.05))),
    )
    for center, radii in bones:
        canvas.blob(center, (radii[0] + 0.025, radii[1] + 0.025), 60, wobble=0.08)
    for center, radii in bones:
        marrow = canvas.blob(center, radii, contrast.marrow, wobble=0.08)
        canvas.fill(marrow, contrast.marrow + 35 * canvas.field(18))
    canvas.blob((0, joint), (0.34 * swell, 0.045), contrast.fluid * 0.5 + 250, wobble=0.2)
    for side in (-1, 1):
        canvas.blob((side * 0.24 * swell, joint), (0.11, 0.04), 50, wobble=0.3)
    if abs(height) < 0.4:
        canvas.blob((0.08, joint - 0.05), (0.035, 0.3), 70, angle=0.7)
    canvas.blob((-0.5, joint + 0.12), (0.03, 0.36), 60, angle=-0.25)
    if canvas.chance(0.5):
        canvas.blob((canvas.near(0, 0.2), joint + canvas.near(0, 0.5)), (0.14, 0.12),
                    contrast.lesion - 400, wobble=0.35, soft=5)  # fmt: skip
    _receive(canvas)


def _receive(canvas: Canvas) -> None:
    """Add what the coil does: uneven sensitivity, and noise on both channels (Rician)."""
    bias = np.exp(canvas.near(0.18, 0.1) * canvas.field(1))
    signal = canvas.values * bias
    deviation = canvas.near(22, 10)
    real, imaginary = signal + canvas.noise(deviation), canvas.noise(deviation)
    canvas.values = np.sqrt(real * real + imaginary * imaginary)
