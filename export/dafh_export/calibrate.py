"""Fit a run's ``calibration.json`` with its own ONNX file."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from dafh.encoding.calibration import Calibration
from dafh.encoding.onnx import CALIBRATION_FILE, MODEL_FILE, OnnxEncoder
from dafh.errors import InvalidInput, Reason
from dafh.evaluation.calibration import NEAREST, fit
from dafh.evaluation.encoded import encode_entries
from dafh.evaluation.manifest import hold_out, in_no_order, read_manifest
from dafh.training.settings import RECIPE_FILE, Recipe
from dafh.writing import OPEN, written


def calibrate(run: Path, manifest: Path, root: Path) -> Calibration:
    """Fit on the train split, of which the run held a part out; write it beside the model.

    How large a part, the run's own recipe says.

    Raises
    ------
    InvalidInput
        The run has no recipe, an image cannot be read, or images are too few to fit anything on.
    """
    try:
        share = Recipe.model_validate_json((run / RECIPE_FILE).read_bytes()).validation
    except (OSError, ValidationError):
        raise InvalidInput(
            Reason.ARGUMENT_INVALID,
            f"{run} has no {RECIPE_FILE} that can be read, so which images the network was not "
            "shown is not known.",
            remedy="Name a folder that `dafh train` wrote.",
            subject="run",
        ) from None
    known = in_no_order(read_manifest(manifest, root), root)
    entries = [entry for entry in known if entry.split == "train"]
    encoder = OnnxEncoder.of_file(run / MODEL_FILE, calibrated=False)
    learnt, held = (encode_entries(part, encoder) for part in hold_out(entries, share))
    refused = learnt.refused + held.refused
    if refused:
        raise InvalidInput(
            Reason.ARGUMENT_INVALID,
            f"Imaging refuses {refused.total()} images of the train split: "
            f"{', '.join(sorted(refused))}.",
            remedy="Take them out of the manifest; `dafh inspect` says which they are.",
            subject="manifest",
        )
    fitted = fit(
        learnt,
        held,
        f"{len(held.entries)} held-out images of the train split, each asking those of other "
        f"groups; the first {NEAREST} hits. Prototypes: the other {len(learnt.entries)} images",
    )
    with written(run / CALIBRATION_FILE, OPEN) as stream:
        stream.write(f"{fitted.model_dump_json(indent=2)}\n".encode())
    return fitted
