from __future__ import annotations

import numpy as np

from dafh.evaluation.bootstrap import interval, macro_resamples


def test_an_interval_covers_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    classes = ["a"] * 40 + ["b"] * 40
    groups = [f"{n // 2}" for n in range(80)]
    covered = 0
    for trial in range(100):
        values = np.repeat(random.normal(0.5, 0.2, 40), 2)
        low, high = interval(values, classes, groups, trial)
        covered += low <= 0.5 <= high
    assert covered >= 86


def test_images_of_a_group_come_and_go_together() -> None:
    values = np.array([0.0, 1.0] * 10)
    # Each group holds one 0 and one 1: resampling groups cannot move the mean.
    together = macro_resamples(values, ["a"] * 20, [f"{n // 2}" for n in range(20)])
    assert np.allclose(together, 0.5)
    alone = macro_resamples(values, ["a"] * 20, [f"{n}" for n in range(20)])
    assert alone.std() > 0.05


def test_no_class_vanishes_from_a_resample() -> None:
    resampled = macro_resamples(np.array([0.0, 0.0, 1.0]), ["a", "a", "b"], ["x", "y", "z"])
    assert np.allclose(resampled, 0.5)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(3).random(30)
    groups = [f"{n}" for n in range(30)]
    assert interval(values, ["a"] * 30, groups, 4) == interval(values, ["a"] * 30, groups, 4)
