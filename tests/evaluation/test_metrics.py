from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dafh.codes import HashCode, asymmetric, hamming
from dafh.evaluation.metrics import (
    TOP,
    average_precision,
    by_class,
    code_distances,
    cosine_distances,
    macro,
    nearest,
    precision_at,
    relevance,
)


def plain(relevant: list[bool]) -> float:
    found, total = 0, 0.0
    for rank, flag in enumerate(relevant[:10], start=1):
        if flag:
            found += 1
            total += found / rank
    return total / found if found else 0.0


def outputs(rows: int, bits: int, seed: int) -> np.ndarray:
    return np.tanh(np.random.default_rng(seed).normal(size=(rows, bits))).astype(np.float32)


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_average_precision_equals_its_definition(relevant: list[bool]) -> None:
    assert average_precision(np.array([relevant]))[0] == pytest.approx(plain(relevant))


@pytest.mark.parametrize("bits", [16, 64])
def test_codes_rank_as_one_query_at_a_time_ranks_them(bits: int) -> None:
    query, database = outputs(20, bits, 1), outputs(300, bits, 2)
    packed = np.packbits(database > 0, axis=1)
    order = nearest(code_distances(query, database))
    for output, found in zip(query, order, strict=True):
        distance, score = hamming(HashCode.of(output), packed), asymmetric(output, packed)
        expected = sorted(range(300), key=lambda row: (distance[row], score[row], row))
        assert found.tolist() == expected[:TOP]


def test_without_the_tie_rule_the_distance_is_the_number_of_bits() -> None:
    query, database = outputs(3, 16, 1), outputs(40, 16, 2)
    packed = np.packbits(database > 0, axis=1)
    expected = np.stack([hamming(HashCode.of(output), packed) for output in query])
    assert np.array_equal(code_distances(query, database, ties=False), expected)


def test_a_cosine_does_not_mind_lengths() -> None:
    query, database = outputs(2, 8, 1), outputs(5, 8, 2)
    assert np.allclose(
        cosine_distances(query * 3, database),
        cosine_distances(query, database * np.float32(0.1)),
        atol=1e-6,
    )


def test_what_is_not_allowed_is_not_ranked() -> None:
    distances = np.array([[3.0, 1.0, 2.0]])
    order = nearest(distances, np.array([[True, False, True]]))
    assert order.tolist() == [[2, 0, -1]]
    assert relevance(order, ["a"], ["a", "a", "b"]).tolist() == [[False, True, False]]


def test_classes_count_the_same_whatever_their_size() -> None:
    values = np.array([1.0, 1.0, 0.0, 0.5])
    per_class = by_class(values, ["a", "a", "a", "b"])
    assert per_class == {"a": pytest.approx(2 / 3), "b": 0.5}
    assert macro(per_class) == pytest.approx((2 / 3 + 0.5) / 2)


def test_precision_counts_only_the_first_ranks() -> None:
    relevant = np.array([[True, False, True, True, False, False]])
    assert [precision_at(relevant, rank)[0] for rank in (1, 2, 5)] == [1.0, 0.5, 0.6]
