"""Augmentation of a whole batch: the paper's rotation, scaling and brightness, and ours.

Ours: quarter turns of some, shift, mirror, contrast, gamma (as a changed window would), blur and
noise (as JPEG would); two images blended into one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

ROTATION = 0.35  # radians either way
TURNED = 0.25  # share of images that are turned by quarters as well
SCALE = (0.75, 1.3)
SHIFT = 0.1  # of the side, either way
BRIGHTNESS = 0.12  # of the range, either way
CONTRAST = (0.7, 1.4)
GAMMA = (0.7, 1.45)
NOISE = 0.04  # largest standard deviation, of the range


def augment(images: Tensor, generator: torch.Generator, side: int | None = None) -> Tensor:
    """Return a changed copy of a batch.

    Parameters
    ----------
    images
        uint8 ``[N, 1, S, S]``.
    generator
        Source of randomness, on the CPU, so that a seed means the same on every device.
    side
        Side of the copy, in pixels; that of `images` if not given.

    Returns
    -------
    Tensor
        float32 ``[N, 1, side, side]`` in [0, 255].
    """
    count = images.shape[0]

    def uniform(low: float, high: float) -> Tensor:
        drawn = torch.rand(count, generator=generator) * (high - low) + low
        return drawn.to(images.device)

    def column(values: Tensor) -> Tensor:
        return values[:, None, None, None]

    moved = _move(images.float() / 255, uniform, side or images.shape[-1])
    window = (moved - 0.5) * column(uniform(*CONTRAST)) + 0.5
    window = window + column(uniform(-BRIGHTNESS, BRIGHTNESS))
    window = window.clamp(0, 1) ** column(uniform(*GAMMA))
    blurred = functional.avg_pool2d(window, 3, stride=1, padding=1)
    blur = column(uniform(-0.5, 1).clamp(min=0))
    noise = torch.randn(moved.shape, generator=generator).to(images.device)
    noisy = window * (1 - blur) + blurred * blur + noise * column(uniform(0, NOISE))
    return noisy.clamp(0, 1) * 255


def _move(images: Tensor, uniform: Callable[[float, float], Tensor], side: int) -> Tensor:
    quarters = uniform(0, 4).floor() * (uniform(0, 1) < TURNED)
    angle, zoom = uniform(-ROTATION, ROTATION) + quarters * torch.pi / 2, 1 / uniform(*SCALE)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    matrix = torch.stack(
        [
            torch.stack([cosine * mirror, -sine, 2 * uniform(-SHIFT, SHIFT)], dim=1),
            torch.stack([sine * mirror, cosine, 2 * uniform(-SHIFT, SHIFT)], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(matrix, [*images.shape[:2], side, side], align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def blend(images: Tensor, others: Tensor, generator: torch.Generator) -> tuple[Tensor, float]:
    """Blend two batches: by weight (mixup, Zhang et al. 2018), by box (CutMix, Yun et al. 2019).

    Parameters
    ----------
    images, others
        float32 ``[N, 1, S, S]``.
    generator
        Source of randomness: which way, and how much.

    Returns
    -------
    tuple[Tensor, float]
        The blend, and the share of `images` in it.
    """
    # Beta(1/2, 1/2), by its arcsine law.
    share = float((torch.rand((), generator=generator) * torch.pi / 2).sin() ** 2)
    if torch.rand((), generator=generator) < 0.5:
        return share * images + (1 - share) * others, share
    side = images.shape[-1]
    cut = round(side * (1 - share) ** 0.5)
    top, left = torch.randint(0, side - cut + 1, (2,), generator=generator).tolist()
    boxed = images.clone()
    boxed[:, :, top : top + cut, left : left + cut] = others[
        :, :, top : top + cut, left : left + cut
    ]
    return boxed, 1 - (cut / side) ** 2
