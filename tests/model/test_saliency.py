"""The contribution map is an explanation: it follows the weights, and it follows the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dafh.imaging.phantom import phantom_images
from dafh.model.network import Architecture, Dafh, Explanation
from dafh.settings import ModelSettings
from dafh.training.weights import WEIGHTS_FILE

SETTINGS = ModelSettings()
WEIGHTS = SETTINGS.model_repository / "dafh" / str(SETTINGS.model_version) / WEIGHTS_FILE
SIDE = 128
RADIUS = 7


def network(seed: int = 0) -> Dafh:
    """Return a network that explains by contribution."""
    torch.manual_seed(seed)
    return Dafh(21, Architecture(explanation=Explanation.CONTRIBUTION)).eval()


@pytest.fixture(scope="module")
def learnt() -> Dafh:
    published = network()
    published.load_state_dict(load_file(WEIGHTS))
    return published


@torch.no_grad()
def maps(asked: Dafh, images: np.ndarray) -> np.ndarray:
    saliency: np.ndarray = asked(torch.from_numpy(images)).saliency.numpy()
    return saliency


def test_the_map_depends_on_the_learnt_weights(learnt: Dafh) -> None:
    """Randomising weights must change an explanation (Adebayo et al., NeurIPS 2018)."""
    images = phantom_images(8, 77, SIDE)
    alike = [
        np.corrcoef(one.ravel(), other.ravel())[0, 1]
        for one, other in zip(maps(learnt, images), maps(network(), images), strict=True)
    ]
    assert np.nanmean(np.abs(alike)) < 0.5


def organs(count: int, side: int) -> np.ndarray:
    """Return plain organs: a grainy ellipse on a dark ground, uint8 ``[count, 1, side, side]``."""
    rows, columns = np.mgrid[:side, :side] / side
    pictures = np.empty((count, 1, side, side), np.uint8)
    for number, picture in enumerate(pictures):
        random = np.random.default_rng(number)
        row, column = random.uniform(0.42, 0.58, 2)
        high, wide = random.uniform(0.27, 0.43, 2)
        inside = ((rows - row) / high) ** 2 + ((columns - column) / wide) ** 2 < 1
        grey = np.where(inside, 110, 20) + random.normal(0, 6, (side, side))
        picture[0] = grey.clip(0, 255)
    return pictures


def gains(asked: Dafh) -> np.ndarray:
    """Return how much more of the map is near a planted bright lesion than was there before it."""
    images = organs(24, SIDE)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    cells = SIDE // 8
    more = np.empty(len(images))
    for number, (image, before) in enumerate(zip(images, maps(asked, images), strict=True)):
        row, column = np.random.default_rng(number).integers(SIDE // 3, 2 * SIDE // 3, 2)
        disc = (rows - row) ** 2 + (columns - column) ** 2 <= RADIUS**2
        planted = np.where(disc, 255, image[0]).astype(np.uint8)
        after = maps(asked, planted[None, None])[0]
        near = np.zeros((cells, cells), bool)
        top, left = max(row // 8 - 1, 0), max(column // 8 - 1, 0)
        near[top : top + 3, left : left + 3] = True
        more[number] = after[near].mean() / after.mean() - before[near].mean() / before.mean()
    return more


def test_a_planted_bright_lesion_attracts_the_map(learnt: Dafh) -> None:
    """By what was learnt: networks with random weights see it too, but much less."""
    ours = gains(learnt)
    assert np.mean(ours > 0) >= 0.9
    assert ours.mean() > 2 * max(gains(network(seed)).mean() for seed in range(4))
