"""Encoder in this process, on ONNX Runtime: for work without a server, and as the bound."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from dafh.deadline import Deadline
from dafh.encoding.calibration import Calibration
from dafh.encoding.port import IMAGE, LOGITS, MODEL, SALIENCY, Encoded, ModelVersion, hash_tensor
from dafh.errors import Misconfigured, Reason
from dafh.settings import silence_onnx_runtime

silence_onnx_runtime()
import onnxruntime  # noqa: E402 - only now may it be imported
from onnxruntime.capi import onnxruntime_pybind11_state as runtime  # noqa: E402 - as above

#: Key of the file's own metadata that describes the model version as JSON.
METADATA = "dafh"
MODEL_FILE = "model.onnx"
CALIBRATION_FILE = "calibration.json"
#: What ONNX Runtime makes of a file that is no model.
NO_MODEL = (runtime.Fail, runtime.InvalidArgument, runtime.InvalidGraph, runtime.InvalidProtobuf)


class OnnxEncoder:
    """Encodes with the model file of a version folder.

    Parameters
    ----------
    model_repository
        Folder that holds ``dafh/<version>/model.onnx``.
    version
        Which version.
    threads
        Threads per inference.
    """

    def __init__(self, model_repository: Path, version: int, threads: int = 1) -> None:
        path = model_repository / MODEL / str(version) / MODEL_FILE
        if not path.is_file():
            raise Misconfigured(
                Reason.MODEL_NOT_FOUND,
                f"There is no model version {version} in {model_repository}.",
                remedy="Name another with --model, or point DAFH_MODEL_REPOSITORY to a repository.",
            )
        self._open(path, version, threads)

    @classmethod
    def of_file(cls, path: Path, threads: int = 1, *, calibrated: bool = True) -> Self:
        """Return an encoder of a model file that need not be published.

        ``calibration.json`` beside it is read where there is one and `calibrated` is set. The
        version is the file's own: 0 until it is published.

        Raises
        ------
        Misconfigured
            There is no such file, it is no ONNX model, it was not written by `dafh export onnx`, or
            the calibration is none of this model.
        """
        if not path.is_file():
            raise Misconfigured(Reason.MODEL_NOT_FOUND, f"There is no model file {path}.")
        encoder = cls.__new__(cls)
        encoder._open(path, None, threads, calibrated=calibrated)
        return encoder

    def _open(
        self, path: Path, version: int | None, threads: int, *, calibrated: bool = True
    ) -> None:
        try:
            self._session = open_session(path, threads)
        except NO_MODEL:
            raise Misconfigured(
                Reason.MODEL_NOT_FOUND,
                f"{path} is no ONNX model, or a damaged one.",
                remedy="Name a model.onnx that `dafh export onnx` wrote, or a version's number.",
            ) from None
        described = self._session.get_modelmeta().custom_metadata_map.get(METADATA, "")
        try:
            model = ModelVersion.model_validate_json(described)
        except ValidationError:
            raise Misconfigured(
                Reason.MODEL_NOT_FOUND,
                f"{path} does not describe itself as a model of this release of DAFH.",
                remedy="Write it with `dafh export onnx`.",
            ) from None
        self._model = model if version is None else model.model_copy(update={"version": version})
        fitted = path.with_name(CALIBRATION_FILE)
        if calibrated and (fitted.is_file() or version is not None):
            self._model = with_calibration(self._model, fitted)

    @property
    def model(self) -> ModelVersion:
        """The model version that answers."""
        return self._model

    def encode(
        self, images: NDArray[np.uint8], deadline: Deadline, *, saliency: bool = False
    ) -> Encoded:
        """Encode uint8 ``[N, 1, S, S]``; the deadline is checked before, not during the run."""
        deadline.remaining("encoding")
        names = [hash_tensor(bits) for bits in self._model.bits] + [LOGITS, SALIENCY]
        outputs = dict(zip(names, self._session.run(names, {IMAGE: images}), strict=True))
        return Encoded(
            hashes={bits: outputs[hash_tensor(bits)] for bits in self._model.bits},
            logits=outputs[LOGITS],
            saliency=outputs[SALIENCY] if saliency else None,
        )

    def close(self) -> None:
        """Nothing is held open."""


def with_calibration(model: ModelVersion, fitted: Path) -> ModelVersion:
    """Return a model version with what was fitted for it.

    Raises
    ------
    Misconfigured
        The file is no calibration, or none of this model.
    """
    try:
        calibration = Calibration.model_validate_json(fitted.read_bytes())
        return ModelVersion.model_validate({**model.model_dump(), "calibration": calibration})
    except (OSError, ValidationError):
        raise Misconfigured(
            Reason.MODEL_NOT_FOUND,
            f"{fitted} is no calibration of the model beside it, or of another release.",
            remedy="Fit it with `dafh export calibration`.",
        ) from None


def open_session(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """Open a model file on ONNX Runtime's CPU provider."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning would burn a core that the rest of the query needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
