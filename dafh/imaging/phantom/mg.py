"""Mammography phantoms: opacity, 0 to 1."""

from __future__ import annotations

import numpy as np

from dafh.imaging.phantom.canvas import Canvas


def breast(canvas: Canvas, height: float) -> None:
    """Draw a breast on the left edge; `height` above 0 shows the chest muscle as MLO views do."""
    across, down = canvas.upright
    left = float(across.min())
    reach, tall = canvas.near(0.75, 0.2), canvas.near(0.8, 0.12)
    sag = canvas.near(0.05, 0.05)
    outline = ((across - left) / reach) ** 2 + ((down - sag) / tall) ** 2
    inside = np.clip((1 - outline) * 40, 0, 1)
    # The compressed breast is flat, and thins out towards the skin.
    thickness = np.clip(1.9 * np.sqrt(np.maximum(0, 1 - outline)), 0, 1)
    canvas.values = 0.33 * thickness * inside
    dense = canvas.near(0.5, 0.4)
    strands = np.abs(canvas.field(7)) + 0.6 * np.abs(canvas.field(16)) + 0.3 * canvas.field(40)
    gland = np.clip(1.3 - ((across - left - 0.25) / (0.7 * reach)) ** 2
                    - ((down - sag) / (0.75 * tall)) ** 2, 0, 1)  # fmt: skip
    canvas.values += 0.3 * dense * gland * strands * inside * thickness
    if height > 0:
        slope = canvas.near(1.5, 0.3)
        muscle = np.clip((-0.25 - down - slope * (across - left)) * 25, 0, 1) * inside
        canvas.values += muscle * (0.35 + 0.03 * canvas.field(10))
    center = left + reach * canvas.near(0.45, 0.15)
    for _ in range(int(canvas.shape.integers(0, 3))):
        at = (center + canvas.near(0, 0.15), canvas.near(0, 0.35))
        size = canvas.near(0.08, 0.04)
        mass = canvas.mask(at, (size, size), wobble=canvas.near(0.3, 0.2), soft=5)
        canvas.values += canvas.near(0.3, 0.1) * mass * inside
    if canvas.chance(0.5):
        at = (center, canvas.near(0, 0.4))
        for _ in range(18):
            spot = (at[0] + canvas.shape.normal(0, 0.05), at[1] + canvas.shape.normal(0, 0.05))
            canvas.values += 0.45 * canvas.mask(spot, (0.008, 0.008)) * inside
    canvas.values = np.clip(canvas.values + canvas.noise(0.012) * (0.3 + inside), 0, 1)
