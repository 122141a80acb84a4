"""Images that the model has no class for, to see if it notices: noise, phantoms, test files."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from dafh.deadline import Deadline
from dafh.encoding.port import Encoder, ModelVersion
from dafh.errors import InvalidInput
from dafh.evaluation.encoded import BATCH, Rows
from dafh.evaluation.trust import Strangeness, judge_strangeness
from dafh.imaging import samples
from dafh.imaging.decode import REPRESENTATIVE, decode
from dafh.imaging.phantom import phantom_images

COUNT = 100
#: Of phantoms that no training run draws.
SEED = 90_001


def white_noise(side: int) -> NDArray[np.uint8]:
    """Return independent grey levels, uint8 ``[COUNT, 1, side, side]``."""
    random = np.random.default_rng(SEED)
    return random.integers(0, 256, (COUNT, 1, side, side), dtype=np.uint8)


def smooth_noise(side: int) -> NDArray[np.uint8]:
    """Return clouds: noise blurred to a tenth of the side and stretched to the full range."""
    random = np.random.default_rng(SEED)
    clouds = np.empty((COUNT, 1, side, side), np.uint8)
    for cloud in clouds:
        blurred = cv2.GaussianBlur(random.normal(size=(side, side)), (0, 0), side / 10)
        spread = np.ptp(blurred)
        cloud[0] = ((blurred - blurred.min()) / spread * 255).astype(np.uint8)
    return clouds


def phantoms(side: int) -> NDArray[np.uint8]:
    """Return phantoms as the model sees them."""
    return phantom_images(COUNT, SEED, side)


def pydicom_files(side: int) -> NDArray[np.uint8]:
    """Return the different images among pydicom's own test files, as far as imaging takes them.

    Small scans, secondary captures and test patches; a few are of a modality that the model knows.
    """
    images: dict[str, NDArray[np.uint8]] = {}
    for file in sorted(samples.pydicom_files().rglob("*")):
        try:
            image = decode(file.read_bytes(), side=side, frame=REPRESENTATIVE)
        except (InvalidInput, IsADirectoryError):
            continue
        images[image.content_sha256] = image.pixels
    return np.stack(list(images.values()))


STRANGERS: dict[str, Callable[[int], NDArray[np.uint8]]] = {
    "white noise": white_noise,
    "smooth noise": smooth_noise,
    "phantoms": phantoms,
    "pydicom's files": pydicom_files,
}


def judge_strangers(known: Rows, encoder: Encoder) -> dict[str, Strangeness]:
    """Judge the shipped threshold between the images of `known` and each kind of stranger.

    Empty where the model version has no threshold, or knows none of the classes.
    """
    calibration = encoder.model.calibration
    own = scores_of_known(known, encoder.model)
    if calibration.out_of_distribution is None or not len(own):
        return {}
    threshold = calibration.out_of_distribution.threshold
    return {
        name: judge_strangeness(own, scores(make(encoder.model.side), encoder), threshold)
        for name, make in STRANGERS.items()
    }


def false_alarms(rows: Rows, model: ModelVersion) -> float | None:
    """Return the share of images that the model calls strange, though it knows their kind.

    ``None`` where there are none, or the model has no threshold.
    """
    fitted = model.calibration.out_of_distribution
    known = scores_of_known(rows, model)
    if fitted is None or not len(known):
        return None
    return float((known > fitted.threshold).mean())


def false_alarms_by_class(rows: Rows, model: ModelVersion) -> dict[str, float]:
    """Return the same for each class; empty where the model has no threshold."""
    fitted = model.calibration.out_of_distribution
    if fitted is None:
        return {}
    beyond = model.calibration.ood_scores(rows.hashes, rows.logits) > fitted.threshold
    names = np.asarray(rows.classes)
    return {
        str(name): float(beyond[names == name].mean())
        for name in np.unique(names)
        if name in model.classes
    }


def scores_of_known(rows: Rows, model: ModelVersion) -> NDArray[np.float64]:
    """Return the out-of-distribution score of each image that is of a class of the model."""
    every = model.calibration.ood_scores(rows.hashes, rows.logits)
    return every[np.isin(rows.classes, model.classes)]


def scores(images: NDArray[np.uint8], encoder: Encoder) -> NDArray[np.float64]:
    """Return the out-of-distribution scores ``[N]`` of uint8 images ``[N, 1, S, S]``."""
    parts = [
        encoder.encode(images[start : start + BATCH], Deadline.never())
        for start in range(0, len(images), BATCH)
    ]
    calibration = encoder.model.calibration
    return np.concatenate([calibration.ood_scores(part.hashes, part.logits) for part in parts])
