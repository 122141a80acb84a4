from __future__ import annotations

import numpy as np

from dafh.evaluation.calibration import FALSE_ALARMS, fit


def sample() -> tuple[np.ndarray, list[str]]:
    random = np.random.default_rng(0)
    centres = np.where(random.random((4, 32)) > 0.5, 0.8, -0.8)
    classes = [f"c{number % 4}" for number in range(160)]
    noise = random.normal(0, 0.8, (160, 32))
    outputs = np.clip(centres[[int(name[1]) for name in classes]] + noise, -1, 1)
    return outputs.astype(np.float32), classes


def test_a_nearer_hit_is_more_probably_relevant() -> None:
    outputs, classes = sample()
    fitted = fit({32: outputs}, outputs[:, :4], classes, "a test")
    near, far = (fitted.probability(32, bits, bits / 32) for bits in (2, 16))
    assert near is not None
    assert far is not None
    assert 0 < far < near < 1


def test_the_threshold_lets_the_stated_share_of_known_images_alarm() -> None:
    outputs, classes = sample()
    fitted = fit({32: outputs}, outputs[:, :4], classes, "a test")
    strange = [not fitted.in_distribution(row) for row in outputs[:, :4]]
    assert abs(np.mean(strange) - FALSE_ALARMS) < 0.02


def test_an_unfitted_length_has_no_probability() -> None:
    outputs, classes = sample()
    fitted = fit({32: outputs}, outputs[:, :4], classes, "a test")
    assert fitted.probability(64, 3, 0.1) is None
