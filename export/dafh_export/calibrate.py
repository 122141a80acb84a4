"""Fit a run's ``calibration.json`` with its own ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dafh.codes import BITS
from dafh.encoding.calibration import Calibration
from dafh.encoding.onnx import CALIBRATION_FILE, MODEL_FILE, open_session
from dafh.encoding.port import IMAGE, LOGITS, hash_tensor
from dafh.evaluation.calibration import NEAREST, fit
from dafh.evaluation.manifest import hold_out, load_images, read_manifest


def calibrate(run: Path, manifest: Path, root: Path, validation: float) -> Calibration:
    """Fit on what the run held out of the train split, and write it beside the model."""
    entries = [entry for entry in read_manifest(manifest, root) if entry.split == "train"]
    _, held = hold_out(entries, validation)
    session = open_session(run / MODEL_FILE)
    side = session.get_inputs()[0].shape[-1]
    names = [*(hash_tensor(bits) for bits in BITS), LOGITS]
    parts = [session.run(names, {IMAGE: image[None]}) for image in load_images(held, side)]
    *hashes, logits = (np.concatenate(column) for column in zip(*parts, strict=True))
    fitted = fit(
        dict(zip(BITS, hashes, strict=True)),
        logits,
        [entry.class_name for entry in held],
        [entry.group for entry in held],
        f"{len(held)} held-out images of the train split, each asking those of other groups; "
        f"the first {NEAREST} hits",
    )
    (run / CALIBRATION_FILE).write_text(fitted.model_dump_json(indent=2) + "\n")
    return fitted
