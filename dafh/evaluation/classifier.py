"""How well the auxiliary classifier names the class, and the cancer type."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from dafh.evaluation.encoded import Rows
from dafh.evaluation.manifest import Entry


class Classified(BaseModel):
    """Quality of a classification."""

    model_config = ConfigDict(frozen=True)

    accuracy: float
    #: Over the names that occur, each counting the same.
    macro_f1: float
    #: One against the rest, macro average; ``None`` where only one name occurs.
    auroc: float | None
    rows: int
    #: Rows of names that the model does not know.
    left_out: int


def shares(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the softmax of logits ``[N, classes]``."""
    wide = logits.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    normal: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return normal


def classify_classes(rows: Rows, classes: Sequence[str]) -> Classified | None:
    """Judge the classes; ``None`` where no row is of a class that the model knows."""
    return _judge(shares(rows.logits), np.asarray(rows.classes), classes)


def classify_cancer_types(
    rows: Rows, classes: Sequence[str], known: Sequence[Entry]
) -> Classified | None:
    """Judge the cancer types, each as probable as its classes together.

    Parameters
    ----------
    rows
        The images.
    classes
        The model's classes, in the order of its logits.
    known
        Rows of the manifest that say which class is of which cancer type; "none" is one too.
    """
    types = {entry.class_name: entry.cancer_type for entry in known if entry.cancer_type}
    names = sorted({types[name] for name in classes if name in types})
    if not names:
        return None
    belongs = np.array([[types.get(name) == kind for kind in names] for name in classes])
    mine = np.isin(np.asarray(rows.classes), list(classes))
    actual = np.where(mine, rows.column("cancer_type"), "")
    return _judge(shares(rows.logits) @ belongs, actual, names)


def _judge(
    probabilities: NDArray[np.float64], actual: NDArray[np.str_], names: Sequence[str]
) -> Classified | None:
    known = np.isin(actual, list(names))
    if not known.any():
        return None
    truth = actual[known]
    given = probabilities[known]
    predicted = np.asarray(names)[given.argmax(axis=1)]
    present = [name for name in names if (truth == name).any()]
    several = len(present) > 1
    curves = [
        roc_auc_score(truth == name, given[:, list(names).index(name)])
        for name in present
        if several
    ]
    return Classified(
        accuracy=float(accuracy_score(truth, predicted)),
        macro_f1=float(f1_score(truth, predicted, labels=present, average="macro",
                                zero_division=0.0)),
        auroc=float(np.mean(curves)) if several else None,
        rows=int(known.sum()),
        left_out=int((~known).sum()),
    )  # fmt: skip
