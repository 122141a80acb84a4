"""From a DICOM file to a vector, in one process: what rivals of DAFH do with an image."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import imagehash
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread

from bench.codes import CACHE
from dafh.encoding.onnx import MODEL_FILE, OnnxEncoder, open_session
from dafh.encoding.port import IMAGE, LOGITS, MODEL, hash_tensor
from dafh.imaging.decode import decode
from dafh.settings import ModelSettings

BITS = 64
SIDE = 128

#: Makes a float vector ``[F]``, or a hash output ``[bits]`` whose signs are the code.
Encode = Callable[[bytes], NDArray[np.float32]]


def fused() -> Encode:
    """Return the float features that the published network makes before its hash heads.

    ImageNet's weights cannot be had everywhere, and would have seen no medical image: features of
    the same network, trained on such images, are the strongest float features there are here.
    Images go through DAFH's own decoding, as in training.
    """
    session = open_session(fused_file(published()))

    def encode(data: bytes) -> NDArray[np.float32]:
        pixels = decode(data, side=SIDE, content_hash=False).pixels[None]
        (features,) = session.run(None, {IMAGE: pixels})
        unit: NDArray[np.float32] = features[0] / max(float(np.linalg.norm(features[0])), 1e-12)
        return unit

    return encode


def published() -> Path:
    """Return the file of the published model version."""
    settings = ModelSettings()
    return settings.model_repository / MODEL / str(settings.model_version) / MODEL_FILE


def fused_file(model: Path) -> Path:
    """Cut a published graph off where its classifier begins; return the file, below ``out``."""
    file = CACHE / f"fused-{OnnxEncoder.of_file(model).model.hash[:12]}.onnx"
    if not file.exists():
        graph = onnx.load(model)
        (name,) = (node.input[0] for node in graph.graph.node if LOGITS in node.output)
        file.parent.mkdir(parents=True, exist_ok=True)
        onnx.utils.extract_model(str(model), str(file), [IMAGE], [name], check_model=False)
    return file


def naive() -> Encode:
    """Return the model's hash output as a first program would ask for it.

    pydicom, a resize, ONNX Runtime as it comes; no window, no crop, no letterbox, no limits.
    """
    session = onnxruntime.InferenceSession(str(published()), providers=["CPUExecutionProvider"])

    def encode(data: bytes) -> NDArray[np.float32]:
        picture = picture_of(data).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        pixels = np.asarray(picture, np.uint8)[None, None]
        (output,) = session.run([hash_tensor(BITS)], {IMAGE: pixels})
        vector: NDArray[np.float32] = output[0]
        return vector

    return encode


def pixel_hash(function: Callable[[Image.Image], imagehash.ImageHash]) -> Encode:
    """Return a perceptual hash of 64 bits; 1 where a bit is set, -1 elsewhere."""

    def encode(data: bytes) -> NDArray[np.float32]:
        bits = function(picture_of(data)).hash.ravel()
        return np.where(bits, 1, -1).astype(np.float32)

    return encode


def picture_of(data: bytes) -> Image.Image:
    """Return the pixels of a file as grey levels, the darkest black and the brightest white."""
    values = dcmread(io.BytesIO(data)).pixel_array
    # Of several frames the first.
    while values.ndim > 3 or (values.ndim == 3 and values.shape[-1] not in (3, 4)):
        values = values[0]
    if values.dtype != np.uint8:
        low, high = float(values.min()), float(values.max())
        values = ((values - low) * (255 / max(high - low, 1))).astype(np.uint8)
    return Image.fromarray(values).convert("L")
