"""Augmentation of a whole batch on its device: the paper's rotation, scaling and brightness, ours.

Ours: shift, mirror, contrast, gamma (as a changed window would), blur and noise (as JPEG would).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

ROTATION = 0.35  # radians either way
SCALE = (0.75, 1.2)
SHIFT = 0.1  # of the side, either way
BRIGHTNESS = 0.12  # of the range, either way
CONTRAST = (0.7, 1.4)
GAMMA = (0.7, 1.45)
NOISE = 0.04  # largest standard deviation, of the range


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return a changed copy of a batch.

    Parameters
    ----------
    images
        uint8 ``[N, 1, S, S]``.
    generator
        Source of randomness, on the CPU, so that a seed means the same on every device.

    Returns
    -------
    Tensor
        float32 ``[N, 1, S, S]`` in [0, 255].
    """
    count = images.shape[0]

    def uniform(low: float, high: float) -> Tensor:
        drawn = torch.rand(count, generator=generator) * (high - low) + low
        return drawn.to(images.device)

    def column(values: Tensor) -> Tensor:
        return values[:, None, None, None]

    moved = _move(images.float() / 255, uniform)
    window = (moved - 0.5) * column(uniform(*CONTRAST)) + 0.5
    window = window + column(uniform(-BRIGHTNESS, BRIGHTNESS))
    window = window.clamp(0, 1) ** column(uniform(*GAMMA))
    blurred = functional.avg_pool2d(window, 3, stride=1, padding=1)
    blur = column(uniform(-0.5, 1).clamp(min=0))
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    noisy = window * (1 - blur) + blurred * blur + noise * column(uniform(0, NOISE))
    return noisy.clamp(0, 1) * 255


def _move(images: Tensor, uniform: Callable[[float, float], Tensor]) -> Tensor:
    angle, zoom = uniform(-ROTATION, ROTATION), 1 / uniform(*SCALE)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    matrix = torch.stack(
        [
            torch.stack([cosine * mirror, -sine, 2 * uniform(-SHIFT, SHIFT)], dim=1),
            torch.stack([sine * mirror, cosine, 2 * uniform(-SHIFT, SHIFT)], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)
