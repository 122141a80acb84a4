from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dafh.codes import BITS, DEFAULT_BITS, HashCode, asymmetric, hamming, unpack_signs

lengths = st.sampled_from(BITS)


@st.composite
def outputs(draw: st.DrawFn, rows: int = 1) -> np.ndarray:
    bits = draw(lengths)
    return draw(arrays(np.float32, (rows, bits), elements=st.floats(-1, 1, width=32)))


@given(outputs())
def test_signs_come_back_from_a_packed_code(values: np.ndarray) -> None:
    code = HashCode.of(values[0])
    assert (code.signs() == np.where(values[0] > 0, 1, -1)).all()
    assert HashCode.from_hex(code.hex()) == code


@given(outputs(rows=6))
def test_hamming_counts_differing_signs(values: np.ndarray) -> None:
    packed = np.packbits(values > 0, axis=1)
    expected = ((values > 0) != (values[0] > 0)).sum(axis=1)
    distances = hamming(HashCode.of(values[0]), packed)
    assert (distances == expected).all()
    # A distance is subtracted from others: an unsigned one would wrap.
    assert distances.dtype == np.int64


@given(outputs(rows=5))
def test_asymmetric_distance_equals_its_definition(values: np.ndarray) -> None:
    packed = np.packbits(values > 0, axis=1)
    expected = [
        np.mean([(1 - float(h) * float(b)) / 2 for h, b in zip(values[0], row, strict=True)])
        for row in unpack_signs(packed)
    ]
    assert asymmetric(values[0], packed) == pytest.approx(expected, abs=1e-8)


@given(outputs(rows=8), st.permutations(range(8)))
def test_asymmetric_distance_does_not_depend_on_storage_order(
    values: np.ndarray, order: list[int]
) -> None:
    packed = np.packbits(values > 0, axis=1)
    assert (asymmetric(values[0], packed)[order] == asymmetric(values[0], packed[order])).all()


@pytest.mark.parametrize("size", [0, 1, 3, 7, 9])
def test_a_code_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="bits"):
        HashCode(bytes(size))


def test_an_archive_has_64_bits_unless_it_says_otherwise() -> None:
    assert DEFAULT_BITS == 64
    assert DEFAULT_BITS in BITS
