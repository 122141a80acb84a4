from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from dafh.codes import HashCode
from dafh.encoding.calibration import Calibration, agreement, directions, strangeness
from dafh.encoding.port import ModelVersion
from dafh.errors import InvalidInput
from dafh.evaluation.calibration import (
    FALSE_ALARMS,
    Hits,
    fit,
    fit_relevance,
    fit_strangeness,
    hits,
    limit,
    prototypes,
)
from dafh.evaluation.encoded import Rows
from dafh.evaluation.manifest import Entry
from dafh.evaluation.trust import calibration_error, judge_probabilities, judge_strangeness
from dafh.index.case import Case, CaseId
from dafh.index.port import Hit, Query
from dafh.index.ranking import Candidates, rank
from dafh.retrieval.retrieve import relevance


def sample(seed: int = 0) -> tuple[np.ndarray, list[str], list[str]]:
    centres = np.where(np.random.default_rng(99).random((4, 32)) > 0.5, 0.8, -0.8)
    random = np.random.default_rng(seed)
    classes = [f"c{number % 4}" for number in range(240)]
    noise = random.normal(0, 1.1, (240, 32))
    outputs = np.clip(centres[[int(name[1]) for name in classes]] + noise, -1, 1)
    return outputs.astype(np.float32), classes, [f"g{number // 8}" for number in range(240)]


def fitted() -> Calibration:
    return fit(rows(7), rows(0), "a test")


def test_a_nearer_hit_is_more_probably_relevant() -> None:
    near, far = (fitted().probability(32, bits, bits / 32) for bits in (2, 16))
    assert near is not None
    assert far is not None
    assert 0 < far < near < 1


def test_a_hit_that_others_back_is_more_probably_relevant() -> None:
    backed, alone = (fitted().probability(32, 8, 0.25, voices) for voices in (1.0, -1.0))
    assert backed is not None
    assert alone is not None
    assert alone < backed


def test_the_threshold_lets_no_more_than_the_stated_share_of_other_patients_alarm() -> None:
    """Some patients are all strange: the fewer were seen, the wider the margin."""
    random = np.random.default_rng(3)

    def patients(many: int) -> tuple[np.ndarray, list[str]]:
        level = np.repeat(random.normal(size=many), 5)
        scores = level + random.normal(0, 0.3, len(level))
        return scores, [f"p{number // 5}" for number in range(5 * many)]

    others, _ = patients(2000)
    alarms = []
    for _ in range(20):
        bound = limit(*patients(50))
        alarms.append(float((others > bound).mean()))
    assert sum(share <= FALSE_ALARMS for share in alarms) >= 17
    assert np.median(alarms) > FALSE_ALARMS / 20


def test_an_unfitted_length_has_no_probability() -> None:
    assert fitted().probability(64, 3, 0.1) is None


def rows(seed: int) -> Rows:
    outputs, classes, groups = sample(seed)
    entries = tuple(
        Entry(Path(f"{n}"), name, "", group)
        for n, (name, group) in enumerate(zip(classes, groups, strict=True))
    )
    return Rows(entries, {32: outputs}, outputs[:, :4], outputs, Counter())


def test_probabilities_hold_on_images_they_were_not_fitted_on() -> None:
    judged = judge_probabilities(rows(5), rows(6), 32, fitted())
    assert judged is not None
    assert judged.expected_calibration_error < 0.05
    assert judged.brier_skill > 0.1
    assert judged.auroc is not None
    assert judged.auroc > 0.7
    assert judge_probabilities(rows(5), rows(6), 32, Calibration()) is None


def test_of_one_group_nobody_answers() -> None:
    own = rows(5)
    entries = tuple(replace(entry, group="alone") for entry in own.entries)
    alone = replace(own, entries=entries)
    assert judge_probabilities(alone, alone, 32, fitted()) is None
    assert judge_probabilities(alone, own, 32, fitted()) is not None


def test_what_the_curve_sees_is_what_is_served() -> None:
    query, database, model = rows(1), rows(2), version(fitted())
    found = hits(query.hashes[32], database.hashes[32], query.classes, database.classes)
    evaluated = [
        model.calibration.probability(32, round(distance * 32), score, voices)
        for distance, score, voices in found.features
    ]
    cases = [
        Case(CaseId(f"{place:04}"), HashCode.of(output), "", "", "", 1, "", 0, label=name)
        for place, (output, name) in enumerate(
            zip(database.hashes[32], database.classes, strict=True)
        )
    ]
    candidates = Candidates(
        np.array([case.id for case in cases]),
        np.stack([np.frombuffer(case.code.packed, np.uint8) for case in cases]),
    )
    served: list[float | None] = []
    for output in query.hashes[32]:
        placed = rank(Query(HashCode.of(output), 10, output), candidates)
        told = [Hit(cases[one.row], one.distance, one.score) for one in placed]
        served += relevance(model, 32, told, told)
    assert served == pytest.approx(evaluated, abs=1e-6)
    assert len({round(one or 0, 3) for one in served}) > 100


def version(calibration: Calibration) -> ModelVersion:
    return ModelVersion(
        version=1, hash="", imaging_version=1, side=32, bits=(32,), classes=("a",),
        calibration=calibration,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([], ()),
        (["a"], (0.0,)),
        (["a"] * 10, (1.0,) * 10),
        (["a"] * 9 + ["b"], (7 / 9,) * 9 + (-1.0,)),
        (["a", ""], (0.0, -1 / 9)),
    ],
)
def test_agreement_counts_the_others(labels: list[str], expected: tuple[float, ...]) -> None:
    assert agreement(labels) == pytest.approx(expected)


def test_a_hit_beyond_the_neighbourhood_has_no_voice() -> None:
    assert agreement(["a"] * 10 + ["b"] * 5)[:10] == (1.0,) * 10
    assert agreement(["a"] * 10 + ["b"])[10] == -1.0


def test_a_false_probability_is_seen() -> None:
    true = np.array([1.0, 0.0] * 50)
    assert calibration_error(np.full(100, 0.5), true) == pytest.approx(0)
    assert calibration_error(np.full(100, 0.9), true) == pytest.approx(0.4)


def test_strangers_are_counted_beyond_the_threshold() -> None:
    known, strange = np.array([-9.0, -8.0, -1.0, -7.0]), np.array([-2.0, -6.0])
    judged = judge_strangeness(known, strange, threshold=-5.0)
    assert (judged.detected, judged.false_alarms, judged.strangers) == (0.5, 0.25, 2)
    assert judged.auroc == pytest.approx(6 / 8)


def test_a_class_that_was_never_learnt_is_stranger_than_one_that_was() -> None:
    learnt, held = rows(7), rows(0)
    shown, asked = np.array(learnt.classes) != "c3", np.array(held.classes)
    known, strange = held.hashes[32][asked != "c3"], held.hashes[32][asked == "c3"]
    names = [name for name in learnt.classes if name != "c3"]
    groups = [group for group, name in zip(held.groups, asked, strict=True) if name != "c3"]
    found = fit_strangeness({32: learnt.hashes[32][shown]}, names, {32: known}, groups)
    others = rows(8)
    known = others.hashes[32][np.array(others.classes) != "c3"]
    judged = judge_strangeness(
        found.scores({32: known}), found.scores({32: strange}), found.threshold
    )
    assert judged.auroc > 0.8
    assert judged.false_alarms <= 2 * FALSE_ALARMS


def test_strangeness_is_a_cosine_distance_over_all_lengths() -> None:
    """Shortest first; the lengths of a row and of a prototype do not count."""
    drawn = directions(np.array([[3.0, 0, 0, 0], [0, 0, 0, 0.5]], np.float32))
    outputs = np.array([[1.0, 0, 0, 0], [0, 0, 0, 0.1], [0, 1.0, 0, 0], [-1.0, 0, 0, -1.0]])
    parted = {3: outputs[:, 1:].astype(np.float32), 1: outputs[:, :1].astype(np.float32)}
    expected = [0.0, 0.0, 1.0, 1 + np.sqrt(0.5)]
    assert strangeness(parted, drawn) == pytest.approx(expected, abs=1e-6)
    assert strangeness({4: np.zeros((1, 4), np.float32)}, drawn) == pytest.approx([1.0])


def test_a_class_has_no_more_prototypes_than_images_that_differ() -> None:
    outputs = np.eye(5, dtype=np.float32)[[0, 0, 1, 2, 3, 4]]
    drawn = prototypes({5: outputs}, ["a", "a", "b", "b", "b", "b"])
    assert drawn.shape == (5, 5)
    assert (drawn[0] == [127, 0, 0, 0, 0]).all()


def test_strangeness_survives_its_file() -> None:
    found, outputs = fitted(), rows(3)
    read = Calibration.model_validate_json(found.model_dump_json())
    assert read == found
    scores = read.ood_scores(outputs.hashes, outputs.logits)
    assert (scores == found.ood_scores(outputs.hashes, outputs.logits)).all()
    assert scores.std() > 0


def test_without_prototypes_the_largest_logit_tells() -> None:
    outputs = rows(3)
    scores = Calibration().ood_scores(outputs.hashes, outputs.logits)
    assert (scores == -outputs.logits.max(axis=1)).all()


@pytest.mark.parametrize("relevant", [True, False])
def test_hits_that_are_all_alike_are_refused(relevant: bool) -> None:
    with pytest.raises(InvalidInput, match="held-out images do not tell"):
        fit_relevance(
            [Hits(np.zeros((4, 3)), np.full(4, relevant), np.arange(4))], ["a", "b", "c", "d"]
        )


def test_what_does_not_hold_for_other_groups_is_not_learnt() -> None:
    """All hits of a group are alike, and from group to group there is no rule."""
    random = np.random.default_rng(5)
    of_group = np.arange(300) // 15
    features = random.normal(size=(20, 3))[of_group]
    relevant = (random.random(20) < 0.5)[of_group]
    plain = LogisticRegression(C=100).fit(features, relevant)
    curve = fit_relevance(
        [Hits(features, relevant, np.arange(300))], [f"g{number}" for number in of_group]
    )
    weights = curve.distance, curve.score, curve.agreement
    assert np.abs(plain.coef_).max() > 0.5
    assert max(map(abs, weights)) < 0.1


def test_as_few_groups_as_there_may_be_are_enough() -> None:
    features = np.array([[0.1, 0.1, 1], [0.4, 0.5, -1]] * 2 + [[0.4, 0.4, -1]] * 2, np.float64)
    relevant = np.array([True, False, True, False, False, False])
    given = Hits(features, relevant, np.array([0, 0, 1, 1, 2, 2]))
    curve = fit_relevance([given], ["a1", "a2", "b1"])
    assert curve.agreement > 0
