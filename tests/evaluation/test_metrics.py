from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dafh.evaluation.metrics import average_precision, mean_average_precision


def plain(relevant: list[bool]) -> float:
    found, total = 0, 0.0
    for rank, flag in enumerate(relevant[:10], start=1):
        if flag:
            found += 1
            total += found / rank
    return total / found if found else 0.0


@given(st.lists(st.booleans(), max_size=20))
def test_average_precision_equals_its_definition(relevant: list[bool]) -> None:
    assert average_precision(relevant) == pytest.approx(plain(relevant))


def test_classes_count_the_same_whatever_their_size() -> None:
    database = np.array([[1.0] * 16, [-1.0] * 16], np.float32)
    query = np.array([[0.9] * 16] * 3 + [[-0.9] * 16], np.float32)
    result = mean_average_precision(query, ["a", "a", "a", "a"], database, ["a", "b"])
    assert result.per_class == {"a": pytest.approx((1 + 1 + 1 + 0.5) / 4)}
    both = mean_average_precision(query, ["a", "a", "a", "b"], database, ["a", "b"])
    assert both.macro == 1.0
