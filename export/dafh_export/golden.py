"""Golden outputs: phantoms and what the published model says of them, for servers to repeat."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from dafh.encoding.onnx import open_session
from dafh.encoding.port import IMAGE, LOGITS, SALIENCY, Encoded, hash_tensor
from dafh.errors import InvalidInput, Reason
from dafh.imaging.phantom import phantom_images
from dafh.writing import write_atomically

GOLDEN_FILE = "golden.safetensors"
#: Which phantoms: enough for one of each modality.
IMAGES, SEED = 8, 2024
#: Largest difference between a server and the golden outputs. ONNX Runtime picks its kernels by
#: the processor, so another machine differs in the last bits.
TOLERANCE = 1e-4

Tensors = Mapping[str, NDArray[np.float32] | NDArray[np.uint8]]


def write_golden(model_file: Path, side: int, out: Path) -> None:
    """Write the phantoms and the model's outputs as ``golden.safetensors``.

    The images are kept with the outputs, so that a later phantom does not invalidate them.
    """
    images = phantom_images(IMAGES, SEED, side)
    session = open_session(model_file)
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, {IMAGE: images}), strict=True))
    write_atomically(out / GOLDEN_FILE, save({IMAGE: images, **outputs}))


def read_golden(folder: Path) -> Tensors:
    """Return the tensors by name; `IMAGE` is uint8 ``[N, 1, S, S]``, the rest float32.

    Raises
    ------
    InvalidInput
        The version has none.
    """
    if not (folder / GOLDEN_FILE).is_file():
        raise InvalidInput(
            Reason.ARGUMENT_INVALID,
            f"Version {folder.name} has no golden outputs.",
            remedy="Remove its folder and publish it again with `dafh export repository`.",
        )
    tensors: dict[str, NDArray[np.float32] | NDArray[np.uint8]] = load_file(folder / GOLDEN_FILE)
    return tensors


def by_tensor(encoded: Encoded) -> Tensors:
    """Return an encoder's answer by the names of the served tensors."""
    answer = {hash_tensor(bits): values for bits, values in encoded.hashes.items()}
    answer[LOGITS] = encoded.logits
    if encoded.saliency is not None:
        answer[SALIENCY] = encoded.saliency
    return answer


def difference(golden: Tensors, answer: Tensors) -> float:
    """Return the largest absolute difference; infinite where a tensor is missing or misshapen."""
    worst = 0.0
    for name in golden.keys() - {IMAGE}:
        got = answer.get(name)
        if got is None or got.shape != golden[name].shape:
            return float("inf")
        worst = max(worst, float(np.abs(golden[name] - got).max()))
        if np.isnan(got).any():
            return float("nan")
    return worst
