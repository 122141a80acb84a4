"""CT phantoms, axial, in Hounsfield units."""

from __future__ import annotations

import numpy as np

from dafh.imaging.phantom.canvas import Canvas, Plane

AIR, LUNG, FAT, WATER, SOFT, BLOOD, CORTEX, MARROW = -1000, -830, -100, 5, 50, 45, 900, 250


def head(canvas: Canvas, height: float) -> None:
    """Draw a head; `height` from the skull base (-1) to the vertex (1)."""
    size = 0.93 - 0.22 * max(0.0, height) ** 2
    wide, long = canvas.near(0.66, 0.07) * size, canvas.near(0.82, 0.06) * size
    thick = canvas.near(0.07, 0.02)
    canvas.blob((0, 0), (wide + 0.06, long + 0.06), 15, wobble=0.03)
    canvas.blob((0, 0), (wide, long), CORTEX + canvas.near(150, 150), wobble=0.03)
    brain = canvas.blob((0, 0), (wide - thick, long - thick), 34, wobble=0.03)
    canvas.fill(brain, 34 + 3 * canvas.field(9) + 2 * canvas.field(22))
    canvas.blob((0, 0), (0.008, long - thick), 55, inside=brain)
    _ventricles(canvas, brain, height)
    if height < -0.35:
        _skull_base(canvas, wide, long)
    for _ in range(1 + int(canvas.shape.integers(3))):
        at = (canvas.near(0, 0.35), canvas.near(0, 0.45))
        density = float(canvas.shape.choice([14, 20, 68, 78]))
        radius = canvas.near(0.14, 0.09)
        canvas.blob(at, (radius, radius * canvas.near(1, 0.4)), density, wobble=0.3, soft=4,
                    inside=brain)  # fmt: skip
    canvas.values += canvas.noise(4)


def _ventricles(canvas: Canvas, brain: Plane, height: float) -> None:
    open_ = canvas.near(0.06, 0.035) * (1.2 - abs(height))
    for side in (-1, 1):
        lean = side * canvas.near(0.3, 0.15)
        canvas.blob((side * (0.06 + open_), -0.05), (open_, canvas.near(0.3, 0.08)), WATER,
                    angle=-lean, wobble=0.2, inside=brain)  # fmt: skip


def _skull_base(canvas: Canvas, wide: float, long: float) -> None:
    for side in (-1, 1):
        canvas.blob((side * wide * 0.45, -long * 0.75), (0.16, 0.15), -40)
        canvas.blob((side * wide * 0.45, -long * 0.78), (0.12, 0.12), 20)
        canvas.blob((side * wide * 0.55, long * 0.12), (0.26, 0.08), CORTEX, angle=side * 0.5,
                    wobble=0.3)  # fmt: skip
        canvas.blob((side * wide * 0.6, long * 0.2), (0.09, 0.05), AIR, wobble=0.4)
    canvas.blob((0, -long * 0.6), (0.09, 0.22), AIR, wobble=0.3)


def chest(canvas: Canvas, height: float) -> None:
    """Draw a chest; `height` from the diaphragm (-1) to the apices (1)."""
    wide, deep = canvas.near(0.86, 0.1), canvas.near(0.6, 0.14)
    inner = _trunk(canvas, wide, deep)
    open_ = 0.9 - 0.35 * max(0.0, height)
    lungs = np.zeros_like(canvas.values)
    for side in (-1, 1):
        center = (side * wide * canvas.near(0.45, 0.04), canvas.near(-0.02, 0.05))
        radii = (wide * 0.34 * open_ * canvas.near(1, 0.2), deep * canvas.near(0.7, 0.1) * open_)
        lungs += canvas.blob(center, radii, LUNG, wobble=0.14, inside=inner)
    canvas.fill(lungs, LUNG + 35 * canvas.field(8) + 20 * canvas.field(25))
    _vessels(canvas, lungs)
    contrast = canvas.near(110, 70)
    if height < 0.5:
        heart = (canvas.near(0.24, 0.05), canvas.near(0.2, 0.05))
        at = (0.1 + 0.1 * canvas.near(0, 1), -0.08 - 0.05 * height)
        canvas.blob(at, heart, BLOOD, angle=0.5, wobble=0.15)
        canvas.blob((at[0] + 0.05, at[1]), (heart[0] * 0.5, heart[1] * 0.5), contrast, soft=3)
    else:
        canvas.blob((0, -0.05), (0.2, 0.17), FAT + 60, wobble=0.2)
        canvas.blob((0, 0.08), (0.055, 0.06), AIR)
    canvas.blob((-0.1, 0.22), (0.07, 0.07), contrast)
    _spine(canvas, deep)
    for index in range(14):
        turn = 2 * np.pi * (index + canvas.grain.uniform(-0.2, 0.2)) / 14
        at = (float(np.cos(turn)) * wide * 0.82, float(np.sin(turn)) * deep * 0.8)
        canvas.blob(at, (0.075, 0.022), CORTEX * 0.6, angle=turn + np.pi / 2)
    if canvas.chance(0.7):
        at = (canvas.near(0, 0.7), canvas.near(-0.05, 0.35))
        radius = canvas.near(0.1, 0.07)
        canvas.blob(at, (radius, radius), 35, wobble=0.35, soft=2, inside=lungs)
    if canvas.chance(0.5):
        lung = float(canvas.shape.choice([-1, 1]))
        at = (lung * canvas.near(0.45, 0.2), canvas.near(0.35, 0.12))
        canvas.blob(at, (canvas.near(0.3, 0.1), canvas.near(0.2, 0.1)), 15, wobble=0.3, soft=3,
                    inside=lungs)  # fmt: skip
    if canvas.chance(0.4):
        at = (canvas.near(0, 0.6), canvas.near(-0.1, 0.3))
        canvas.blob(at, (canvas.near(0.2, 0.1), 0.16), -450, wobble=0.4, soft=14, inside=lungs)
    canvas.values += canvas.noise(12)


def _vessels(canvas: Canvas, lungs: Plane) -> None:
    for _ in range(36):
        at = (canvas.grain.uniform(-0.75, 0.75), canvas.grain.uniform(-0.45, 0.45))
        radius = canvas.grain.uniform(0.006, 0.022)
        canvas.blob(at, (radius * canvas.grain.uniform(1, 3), radius), 30,
                    angle=canvas.grain.uniform(0, np.pi), inside=lungs)  # fmt: skip


def abdomen(canvas: Canvas, height: float) -> None:
    """Draw an abdomen; `height` from the navel (-1) to the liver's dome (1)."""
    wide, deep = canvas.near(0.84, 0.12), canvas.near(0.6, 0.16)
    inner = _trunk(canvas, wide, deep)
    canvas.fill(canvas.mask((0, -0.04), (wide * 0.72, deep * 0.66), wobble=0.06) * inner, FAT + 10)
    enhanced = canvas.near(40, 40)
    size = (wide * (canvas.near(0.34, 0.08) + 0.1 * height), deep * canvas.near(0.6, 0.15))
    liver = canvas.blob((-wide * 0.36, -0.06), size, 55 + enhanced, wobble=0.22, angle=-0.3,
                        inside=inner)  # fmt: skip
    canvas.fill(liver, 55 + enhanced + 4 * canvas.field(14))
    for _ in range(int(canvas.shape.integers(0, 4))):
        radius = canvas.near(0.1, 0.08)
        at = (-wide * canvas.near(0.38, 0.2), canvas.near(-0.05, 0.25))
        canvas.blob(at, (radius, radius), canvas.near(30, 25), wobble=0.25, soft=3, inside=liver)
    canvas.blob((wide * 0.58, 0.05), (0.13, 0.2 + 0.06 * height), 50 + enhanced, wobble=0.2,
                angle=0.3, inside=inner)  # fmt: skip
    for side in (-1, 1):
        at = (side * canvas.near(0.36, 0.04), canvas.near(0.2, 0.04))
        kidney = canvas.blob(at, (0.11, 0.15), 60 + 2 * enhanced, angle=side * 0.5, wobble=0.1)
        canvas.blob(at, (0.05, 0.08), FAT + 40, angle=side * 0.5, wobble=0.3, inside=kidney)
        if canvas.chance(0.3):
            canvas.blob((at[0] + side * 0.09, at[1]), (0.09, 0.08), canvas.near(20, 20))
    _bowel(canvas, inner, wide, loops=3 + int(4 * (1 - height)))
    canvas.blob((0.05, 0.12), (0.06, 0.06), BLOOD + 3 * enhanced)
    canvas.blob((-0.1, 0.12), (0.07, 0.045), BLOOD + 2 * enhanced)
    _spine(canvas, deep)
    canvas.values += canvas.noise(10)


def _bowel(canvas: Canvas, inner: Plane, wide: float, loops: int) -> None:
    for _ in range(loops):
        at = (canvas.near(0.15, 0.45) * wide, canvas.near(-0.2, 0.18))
        radii = (canvas.near(0.12, 0.05), canvas.near(0.09, 0.04))
        loop = canvas.blob(at, radii, 35, wobble=0.25, inside=inner)
        if canvas.grain.random() < 0.55:
            # Gas rises: it fills the front of a loop down to a level.
            level = at[1] + radii[1] * canvas.grain.uniform(-0.5, 0.6)
            canvas.fill(canvas.mask(at, (radii[0] * 0.82, radii[1] * 0.8), wobble=0.25)
                        * loop * (canvas.y < level), AIR + 50)  # fmt: skip


def pelvis(canvas: Canvas, height: float) -> None:
    """Draw a pelvis; `height` from the hip joints (-1) to the iliac wings (1)."""
    wide, deep = canvas.near(0.88, 0.08), canvas.near(0.55, 0.12)
    inner = _trunk(canvas, wide, deep)
    canvas.fill(canvas.mask((0, -0.02), (wide * 0.6, deep * 0.62), wobble=0.05) * inner, FAT)
    for side in (-1, 1):
        canvas.blob((side * wide * 0.5, 0.22), (0.26, 0.16), SOFT + 8, angle=side * 0.5,
                    wobble=0.15, inside=inner)  # fmt: skip
        if height < 0:
            at = (side * wide * 0.6, 0.02)
            canvas.blob(at, (0.17, 0.16), CORTEX * 0.7, wobble=0.15)
            canvas.blob(at, (0.12, 0.115), MARROW, soft=3)
            canvas.blob((side * wide * 0.42, -0.05), (0.05, 0.15), CORTEX * 0.7, angle=side * 0.3)
        else:
            at, lean = (side * wide * 0.55, 0.02), side * canvas.near(0.7, 0.15)
            canvas.blob(at, (0.045, 0.28), CORTEX * 0.8, angle=-lean, wobble=0.2)
            canvas.blob(at, (0.02, 0.24), MARROW, angle=-lean, wobble=0.2)
    filled = canvas.near(0.2, 0.13)
    canvas.blob((canvas.near(0, 0.06), -0.14), (filled * 1.2, filled), WATER, wobble=0.12)
    canvas.blob((canvas.near(0, 0.03), 0.2), (0.09, 0.08), SOFT, wobble=0.2)
    canvas.blob((0, 0.19), (0.05, 0.04), AIR + 100, wobble=0.4)
    canvas.blob((0, 0.4), (0.17 + 0.1 * max(0.0, height), 0.07), CORTEX * 0.6, wobble=0.3)
    if canvas.chance(0.4):
        canvas.blob((canvas.near(0, 0.4), canvas.near(-0.05, 0.2)), (0.13, 0.12), 60, wobble=0.3)
    _bowel(canvas, inner, wide, loops=2 + int(3 * (1 + height)))
    canvas.values += canvas.noise(12)


def _trunk(canvas: Canvas, wide: float, deep: float) -> Plane:
    """Draw table, skin, fat and muscle; return the mask of the inside."""
    fat = canvas.near(0.12, 0.09)
    canvas.fill(((canvas.y > deep + 0.1) & (canvas.y < deep + 0.14)).astype(float), -300)
    canvas.blob((0, 0), (wide, deep), FAT, wobble=0.05)
    inner = canvas.blob((0, 0), (wide - fat, deep - fat), SOFT, wobble=0.05)
    canvas.fill(inner, SOFT + 6 * canvas.field(12))
    return inner


def _spine(canvas: Canvas, deep: float) -> None:
    at = deep * 0.55
    canvas.blob((0, at), (0.12, 0.1), CORTEX * 0.5, wobble=0.1)
    canvas.blob((0, at), (0.095, 0.075), MARROW, soft=3)
    canvas.blob((0, at + 0.17), (0.16, 0.035), CORTEX * 0.6, wobble=0.4)
    canvas.blob((0, at + 0.12), (0.05, 0.04), 20)
