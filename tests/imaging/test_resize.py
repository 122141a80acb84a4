"""What is cut off as padding, against a plain reading of the rule."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dafh.imaging.resize import BORDER_TOLERANCE, MIN_KEPT, crop_padding


def kept(grey: NDArray[np.uint8]) -> slice | None:
    """Return the rows from the first to the last that differ from the top and bottom edge."""
    edge = float(np.median(np.concatenate([grey[0], grey[-1]])))
    far = [row for row, values in enumerate(grey) if any(abs(values - edge) > BORDER_TOLERANCE)]
    if not far or far[-1] - far[0] + 1 < MIN_KEPT * len(grey):
        return None
    return slice(far[0], far[-1] + 1)


@given(
    rows=st.integers(1, 24),
    columns=st.integers(1, 24),
    margin=st.integers(0, 255),
    inside=st.integers(0, 255),
    noise=st.sampled_from([0, 1, BORDER_TOLERANCE, BORDER_TOLERANCE + 2]),
    box=st.tuples(*[st.integers(0, 24)] * 4),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=300, deadline=None)
def test_a_crop_keeps_what_differs_from_its_borders(
    rows: int,
    columns: int,
    margin: int,
    inside: int,
    noise: int,
    box: tuple[int, int, int, int],
    seed: int,
) -> None:
    grey = np.full((rows, columns), float(margin))
    grey[box[0] : box[0] + box[1], box[2] : box[2] + box[3]] = inside
    grey += np.random.default_rng(seed).integers(-noise, noise + 1, grey.shape)
    image = np.clip(grey, 0, 255).astype(np.uint8)
    down, across = kept(image), kept(image.T)
    expected = image if down is None or across is None else image[down, across]
    found = crop_padding(image)
    assert found.shape == expected.shape
    assert np.array_equal(found, expected)


def test_a_dark_image_is_not_cut_to_a_speck() -> None:
    image = np.zeros((64, 64), np.uint8)
    image[30:34, 10:60] = 200
    assert crop_padding(image) is image


def test_a_border_is_cut_off_where_a_quarter_of_a_side_is_left() -> None:
    image = np.zeros((40, 40), np.uint8)
    image[15:25, 10:30] = 200
    assert crop_padding(image).shape == (10, 20)
    image[15] = 0
    assert crop_padding(image) is image
