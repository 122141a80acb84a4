from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dafh.evaluation.classifier import classify_cancer_types, classify_classes, shares
from dafh.evaluation.encoded import Rows
from dafh.evaluation.manifest import Entry

#: What the network knows, and the cancer type of each.
KNOWN = {"ct_a": "a", "mr_a": "a", "ct_b": "b", "mr_normal": "none"}
NAMES = list(KNOWN)


def rows(names: list[str], logits: list[list[float]]) -> Rows:
    entries = tuple(Entry(Path(n), n, "", n, cancer_type=KNOWN.get(n, "c")) for n in names)
    given = np.array(logits, np.float32)
    return Rows(entries, {}, given, given)


def test_accuracy_f1_and_auroc_are_those_counted_by_hand() -> None:
    right, wrong = [3.0, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0]
    judged = classify_classes(rows(["ct_a", "ct_a", "mr_a"], [right, wrong, wrong]), NAMES)
    assert judged is not None
    assert judged.accuracy == pytest.approx(2 / 3)
    # Each class: one right of two named or meant so: F1 = 2 * 1 / (1 + 2).
    assert judged.macro_f1 == pytest.approx(2 / 3)
    # Of the two pairs (an image of the class, one of another) half tie and half are in order.
    assert judged.auroc == pytest.approx(0.75)


def test_a_cancer_type_is_as_probable_as_its_classes_together() -> None:
    # ct_b is the likeliest class, but the two classes of type a together are likelier.
    judged = classify_cancer_types(
        rows(["ct_a", "ct_b"], [[1.0, 1.0, 1.2, -9.0], [0.0, 0.0, 2.0, -9.0]]),
        NAMES,
        rows(NAMES, [[0.0] * 4] * 4).entries,
    )
    assert judged is not None
    assert judged.accuracy == 1.0


def test_rows_of_unknown_classes_are_left_out_and_counted() -> None:
    given = rows(["ct_a", "stranger"], [[1.0, 0.0, 0.0, 0.0]] * 2)
    judged = classify_classes(given, NAMES)
    assert judged is not None
    assert (judged.rows, judged.left_out, judged.accuracy, judged.auroc) == (1, 1, 1.0, None)
    kinds = classify_cancer_types(given, NAMES, given.entries)
    assert kinds is not None
    assert (kinds.rows, kinds.left_out) == (1, 1)


def test_where_no_class_is_known_there_is_no_figure() -> None:
    assert classify_classes(rows(["stranger"], [[0.0] * 4]), NAMES) is None


def test_probabilities_sum_to_one_however_large_the_logits() -> None:
    assert np.allclose(shares(np.array([[1e4, 0.0], [-1e4, 0.0]], np.float32)).sum(axis=1), 1)
