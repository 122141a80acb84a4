"""Encoder on NVIDIA Triton over gRPC."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

from dafh.deadline import Deadline
from dafh.encoding.port import (
    IMAGE,
    LOGITS,
    MODEL,
    SALIENCY,
    Encoded,
    ModelVersion,
    hash_tensor,
    version_parameter,
)
from dafh.errors import (
    DafhError,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    Overloaded,
    Reason,
    Unavailable,
)
from dafh.imaging.image import IMAGING_VERSION

#: Largest batch of one request; ``max_batch_size`` of the model configuration.
MAX_BATCH = 64


class TritonEncoder:
    """Encodes with one version of the model ``dafh`` on a Triton server.

    The model's description is read from the server on first use and again after the server was
    away, so that a server that came back with another model is noticed.

    Parameters
    ----------
    address
        ``host:port`` of Triton's gRPC endpoint.
    version
        Model version.
    """

    def __init__(self, address: str, version: int) -> None:
        self._client = InferenceServerClient(
            address,
            # Images go to Triton and to nobody between.
            channel_args=[
                ("grpc.enable_http_proxy", 0),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", -1),
            ],
        )
        self._version = version
        self._described: ModelVersion | None = None

    @property
    def model(self) -> ModelVersion:
        """The model version that answers."""
        return self.describe(Deadline.after(5.0))

    def describe(self, deadline: Deadline) -> ModelVersion:
        """Return the model version, asking the server where it is not known yet."""
        if self._described is None:
            try:
                answer = self._client.get_model_config(
                    MODEL, str(self._version), client_timeout=deadline.remaining("asking Triton")
                )
            except InferenceServerException as error:
                raise self._translated(error) from None
            parameter = answer.config.parameters.get(version_parameter(self._version))
            if parameter is None:
                raise FailedPrecondition(
                    Reason.MODEL_NOT_LOADED,
                    f"Triton's configuration of {MODEL} does not describe version {self._version}.",
                    remedy="Publish the version with `dafh export repository`.",
                )
            described = ModelVersion.model_validate_json(parameter.string_value)
            if described.imaging_version != IMAGING_VERSION:
                raise FailedPrecondition(
                    Reason.MODEL_NOT_LOADED,
                    f"Model version {self._version} was trained with imaging version "
                    f"{described.imaging_version}; this program has {IMAGING_VERSION}.",
                    remedy="Run the release of DAFH that matches the model.",
                )
            self._described = described
        return self._described

    def encode(
        self, images: NDArray[np.uint8], deadline: Deadline, *, saliency: bool = False
    ) -> Encoded:
        """Encode uint8 ``[N, 1, S, S]``, at most `MAX_BATCH` images a request."""
        model = self.describe(deadline)
        names = [*(hash_tensor(bits) for bits in model.bits), LOGITS]
        if saliency:
            names.append(SALIENCY)
        parts = [
            self._infer(images[start : start + MAX_BATCH], names, deadline)
            for start in range(0, len(images), MAX_BATCH)
        ]
        tensors = {name: np.concatenate([_tensor(part, name) for part in parts]) for name in names}
        return Encoded(
            hashes={bits: tensors[hash_tensor(bits)] for bits in model.bits},
            logits=tensors[LOGITS],
            saliency=tensors.get(SALIENCY),
        )

    def ready(self, deadline: Deadline) -> bool:
        """Say whether the server has the model version loaded."""
        try:
            return bool(
                self._client.is_model_ready(
                    MODEL, str(self._version), client_timeout=deadline.remaining("asking Triton")
                )
            )
        except InferenceServerException:
            return False

    def _infer(
        self, images: NDArray[np.uint8], names: list[str], deadline: Deadline
    ) -> InferResult:
        tensor = InferInput(IMAGE, list(images.shape), "UINT8")
        tensor.set_data_from_numpy(np.ascontiguousarray(images))
        remaining = deadline.remaining("inference")
        try:
            return self._client.infer(
                MODEL,
                [tensor],
                model_version=str(self._version),
                outputs=[InferRequestedOutput(name) for name in names],
                client_timeout=remaining,
            )
        except InferenceServerException as error:
            raise self._translated(error) from None

    def _translated(self, error: InferenceServerException) -> DafhError:
        self._described = None
        status, text = str(error.status()), str(error.message())
        if "DEADLINE_EXCEEDED" in status:
            return DeadlineExceeded(
                Reason.DEADLINE_EXCEEDED,
                "Triton did not answer before the deadline.",
                remedy="Give the call more time; if it repeats, look at Triton's queue and health.",
            )
        # While it shuts down or before it is ready Triton says NOT_FOUND "no available versions".
        if "UNAVAILABLE" in status or "no available versions" in text:
            return Unavailable(
                Reason.ENCODER_UNAVAILABLE,
                "Triton is not reachable or not ready.",
                remedy="Try again shortly; if it stays so, look at Triton.",
            )
        if "NOT_FOUND" in status:
            return FailedPrecondition(
                Reason.MODEL_NOT_LOADED,
                f"Triton has not loaded version {self._version} of {MODEL}.",
                remedy="Load it, or switch the archive to a version that is loaded.",
            )
        if "RESOURCE_EXHAUSTED" in status:
            return Overloaded(Reason.OVERLOADED, "Triton's queue is full.")
        return Internal(Reason.ENCODER_WRONG, f"Triton refused the request ({status}).")

    def close(self) -> None:
        """Close the channel."""
        self._client.close()


def _tensor(result: InferResult, name: str) -> NDArray[np.float32]:
    values = result.as_numpy(name)
    if values is None:
        raise Internal(Reason.ENCODER_WRONG, f"Triton's answer lacks the output {name}.")
    return np.asarray(values, np.float32)
