"""Encoder on NVIDIA Triton over gRPC."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, cast

import grpc
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from tritonclient.grpc import service_pb2, service_pb2_grpc

from dafh.calls import WITHOUT_THREADS, only_answer
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

CHANNEL_OPTIONS = (
    # Images go to Triton and to nobody between.
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Of several servers behind one name (``dns:///triton:8001``) each gets its share.
    ("grpc.lb_policy_name", "round_robin"),
    # A peer that vanished without a word is noticed, and found again within a second.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    # Connections that closed cannot be found again.
    ("grpc.use_local_subchannel_pool", 1),
    WITHOUT_THREADS,
)

_PARAMETER = re.compile(version_parameter(0).replace("0", r"([1-9][0-9]*)"))
#: What Triton says, as UNAVAILABLE, where a queue holds ``max_queue_size`` requests.
_FULL = "Exceeds maximum queue size"
#: What Triton's python backend says, as INTERNAL, of a process of a model that died, or got no
#: processor for a third of a second; it starts another.
_UNHEALTHY = "is not healthy"
#: Seconds in which Triton says whether it is about to end, or only lacks the version.
_ASK_S = 1.0


class TritonServer:
    """A Triton server, or several behind one name; may be used by several threads.

    Parameters
    ----------
    address
        ``host:port`` of the gRPC endpoint, or any gRPC target such as ``dns:///triton:8001``.
    credentials
        For TLS; plaintext without them.
    headers
        Returns metadata to send, so that a trace goes on there.
    server_name
        Name in the server's certificate, where it is not the host of the address.
    """

    def __init__(
        self,
        address: str,
        credentials: grpc.ChannelCredentials | None = None,
        headers: Callable[[], tuple[tuple[str, str], ...]] = tuple,
        server_name: str = "",
    ) -> None:
        self._headers = headers
        # Servers take turns call by call: were inferences and questions to take turns together, one
        # server could get all inferences and the other all questions.
        self._channels = [_channel(address, credentials, server_name) for _ in range(2)]
        inferring, asking = self._channels
        self._inferences = inferring.unary_stream(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(asking)

    def loaded(self, deadline: Deadline) -> tuple[int, ...]:
        """Return the versions of the model that are loaded.

        Raises
        ------
        FailedPrecondition
            None is.
        Unavailable, DeadlineExceeded
            The server does not answer.
        """
        request = service_pb2.ModelMetadataRequest(name=MODEL)
        answer = self.ask("ModelMetadata", request, deadline)
        return tuple(sorted(int(version) for version in answer.versions))

    def described(self, deadline: Deadline) -> dict[int, str]:
        """Return the descriptions (JSON) of all versions that the model configuration knows.

        Raises
        ------
        FailedPrecondition, Unavailable, DeadlineExceeded
            As `loaded`.
        """
        return self._parameters("", deadline)

    def description(self, version: int, deadline: Deadline) -> str:
        """Return the description (JSON) of a loaded version, as the server has it now.

        Raises
        ------
        FailedPrecondition
            The version is not loaded, or its configuration does not describe it.
        Unavailable, DeadlineExceeded
            The server does not answer.
        """
        text = self._parameters(str(version), deadline).get(version)
        if text is None:
            raise FailedPrecondition(
                Reason.MODEL_NOT_LOADED,
                f"Triton's configuration of {MODEL} does not describe version {version}.",
                remedy="Publish the version with `dafh export repository`.",
            )
        return text

    def ready(self, version: int, deadline: Deadline) -> bool:
        """Say whether the server has a model version loaded."""
        request = service_pb2.ModelReadyRequest(name=MODEL, version=str(version))
        try:
            return bool(self.ask("ModelReady", request, deadline).ready)
        except DafhError:
            return False

    def infer(
        self, version: int, images: NDArray[np.uint8], names: list[str], deadline: Deadline
    ) -> dict[str, NDArray[np.float32]]:
        """Run a model version on uint8 ``[N, 1, S, S]``, ``N`` at most `MAX_BATCH`.

        Returns
        -------
        dict[str, NDArray[np.float32]]
            Each output asked for.

        Raises
        ------
        Internal
            The answer lacks one of them.
        DafhError
            As `loaded`.
        """
        request = service_pb2.ModelInferRequest(
            model_name=MODEL,
            model_version=str(version),
            inputs=[
                service_pb2.ModelInferRequest.InferInputTensor(
                    name=IMAGE, datatype="UINT8", shape=images.shape
                )
            ],
            outputs=[
                service_pb2.ModelInferRequest.InferRequestedOutputTensor(name=name)
                for name in names
            ],
            raw_input_contents=[np.ascontiguousarray(images).tobytes()],
        )
        answer = self._infer(request, deadline)
        tensors = dict(_tensors(answer))
        for name in names:
            if name not in tensors:
                raise Internal(Reason.ENCODER_WRONG, f"Triton's answer lacks the output {name}.")
        return tensors

    def ask(self, name: str, request: object, deadline: Deadline) -> Any:  # noqa: ANN401 - Triton's own messages are not typed
        """Call a method of Triton that answers at once.

        Raises
        ------
        DafhError
            Triton's refusal, translated.
        """
        try:
            return getattr(self._stub, name)(
                request, timeout=deadline.remaining("asking Triton"), metadata=self._headers()
            )
        except grpc.RpcError as error:
            call = cast("grpc.Call", error)
            raise self._translated(call.code(), call.details() or "") from None

    def _infer(self, request: object, deadline: Deadline) -> Any:  # noqa: ANN401 - as above
        """Run the model; a caller who gives up ends the call at once."""
        call = self._inferences(
            request, timeout=deadline.remaining("inference"), metadata=self._headers()
        )
        try:
            return only_answer(call, deadline.stopping)
        except grpc.FutureCancelledError:
            deadline.remaining("inference")
            raise Unavailable(Reason.ENCODER_UNAVAILABLE, "The call to Triton was ended.") from None
        except grpc.RpcError:
            raise self._translated(call.code(), call.details() or "") from None

    def close(self) -> None:
        """Close the channels."""
        for channel in self._channels:
            channel.close()

    def _parameters(self, version: str, deadline: Deadline) -> dict[int, str]:
        request = service_pb2.ModelConfigRequest(name=MODEL, version=version)
        answer = self.ask("ModelConfig", request, deadline)
        found = (
            (_PARAMETER.fullmatch(key), value) for key, value in answer.config.parameters.items()
        )
        return {int(match[1]): value.string_value for match, value in found if match}

    def _translated(self, code: grpc.StatusCode, details: str) -> DafhError:
        match code:
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return DeadlineExceeded(
                    Reason.DEADLINE_EXCEEDED,
                    "Triton did not answer before the deadline.",
                    remedy="Give the call more time; if it repeats, look at Triton's queue and "
                    "health.",
                )
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                return _full()
            case grpc.StatusCode.UNAVAILABLE if _FULL in details:
                return _full()
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.NOT_FOUND if _of_model(details):
                # While it shuts down, Triton says this of every model.
                if self._lives():
                    return FailedPrecondition(
                        Reason.MODEL_NOT_LOADED,
                        f"Triton has not loaded that version of {MODEL}.",
                        remedy="Load it, or switch the archive to a version that is loaded.",
                    )
                return _away()
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
                return _away()
            case grpc.StatusCode.INTERNAL if _UNHEALTHY in details:
                return _away()
            case _:
                return Internal(Reason.ENCODER_WRONG, f"Triton refused the request ({code.name}).")

    def _lives(self) -> bool:
        # Not whether it is ready: it is not, by its own account, when any version was unloaded.
        try:
            answer = self._stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=_ASK_S)
        except grpc.RpcError:
            return False
        return bool(answer.live)


class TritonEncoder:
    """Encodes with one version of the model ``dafh``.

    The description is read before the first inference and once more after every one, so that the
    codes of a version that was replaced meanwhile are not taken for those of the version before.

    Parameters
    ----------
    server
        Triton, or ``host:port`` of its gRPC endpoint; closed with the encoder.
    version
        Model version.
    """

    def __init__(self, server: TritonServer | str, version: int) -> None:
        self._server = TritonServer(server) if isinstance(server, str) else server
        self._version = version
        #: Text and content of the description.
        self._described: tuple[str, ModelVersion] | None = None

    @property
    def model(self) -> ModelVersion:
        """The model version that answers."""
        return self.describe(Deadline.after(5.0))

    def describe(self, deadline: Deadline) -> ModelVersion:
        """Return the model version, asking the server where it is not known yet.

        Raises
        ------
        FailedPrecondition
            It is not loaded, or is for another imaging version.
        Unavailable, DeadlineExceeded
            The server does not answer.
        """
        return self._known(deadline)[1]

    def encode(
        self, images: NDArray[np.uint8], deadline: Deadline, *, saliency: bool = False
    ) -> Encoded:
        """Encode uint8 ``[N, 1, S, S]``, at most `MAX_BATCH` images a request."""
        text, model = self._known(deadline)
        names = [*(hash_tensor(bits) for bits in model.bits), LOGITS]
        if saliency:
            names.append(SALIENCY)
        try:
            parts = [
                self._server.infer(
                    self._version, images[start : start + MAX_BATCH], names, deadline
                )
                for start in range(0, len(images), MAX_BATCH)
            ]
            self._confirm(text, deadline)
        except DafhError:
            # It may come back with another model.
            self._described = None
            raise
        tensors = {name: np.concatenate([part[name] for part in parts]) for name in names}
        widths = {hash_tensor(bits): bits for bits in model.bits} | {LOGITS: len(model.classes)}
        for name, width in widths.items():
            if tensors[name].shape != (len(images), width) or not np.isfinite(tensors[name]).all():
                raise Internal(
                    Reason.ENCODER_WRONG, f"Triton's output {name} is not what the model gives."
                )
        return Encoded(
            hashes={bits: tensors[hash_tensor(bits)] for bits in model.bits},
            logits=tensors[LOGITS],
            saliency=tensors.get(SALIENCY),
        )

    def ready(self, deadline: Deadline) -> bool:
        """Say whether the server has the model version loaded."""
        return self._server.ready(self._version, deadline)

    def close(self) -> None:
        """Let go of the connection."""
        self._server.close()

    def _known(self, deadline: Deadline) -> tuple[str, ModelVersion]:
        if self._described is None:
            text = self._server.description(self._version, deadline)
            self._described = text, read_description(text)
        return self._described

    def _confirm(self, text: str, deadline: Deadline) -> None:
        if self._server.description(self._version, deadline) != text:
            raise FailedPrecondition(
                Reason.MODEL_NOT_LOADED,
                f"Version {self._version} of {MODEL} was replaced while it was in use.",
                remedy="Give a changed model a version number of its own.",
            )


def read_description(text: str) -> ModelVersion:
    """Read what Triton's model configuration says of a version.

    Raises
    ------
    FailedPrecondition
        This program does not prepare images as the model was trained with, or does not understand
        what is said.
    """
    try:
        described = ModelVersion.model_validate_json(text)
    except ValidationError as error:
        wrong = ", ".join(sorted({".".join(map(str, one["loc"])) for one in error.errors()}))
        raise FailedPrecondition(
            Reason.MODEL_NOT_LOADED,
            f"Triton's configuration describes the model in a way that this program does not "
            f"understand ({wrong or 'as a whole'}).",
            remedy="Run the release of DAFH that the model was published with, or publish it anew.",
        ) from None
    if described.imaging_version != IMAGING_VERSION:
        raise FailedPrecondition(
            Reason.MODEL_NOT_LOADED,
            f"Model version {described.version} was trained with imaging version "
            f"{described.imaging_version}; this program has {IMAGING_VERSION}.",
            remedy="Run the release of DAFH that matches the model.",
        )
    return described


def _channel(
    address: str, credentials: grpc.ChannelCredentials | None, server_name: str
) -> grpc.Channel:
    options: tuple[tuple[str, int | str], ...] = CHANNEL_OPTIONS
    if credentials is None:
        return grpc.insecure_channel(address, options)
    if server_name:
        options += (("grpc.ssl_target_name_override", server_name),)
    return grpc.secure_channel(address, credentials, options)


def _of_model(details: str) -> bool:
    """Say whether a refusal is about the model and not about the connection."""
    return any(phrase in details for phrase in ("unknown model", "no available versions"))


def _full() -> Overloaded:
    return Overloaded(
        Reason.OVERLOADED, "Triton's queue is full.", remedy="Try again a little later."
    )


def _away() -> Unavailable:
    return Unavailable(
        Reason.ENCODER_UNAVAILABLE,
        "Triton is not reachable or not ready.",
        remedy="Try again shortly; if it stays so, look at Triton.",
    )


def _tensors(
    answer: service_pb2.ModelInferResponse,
) -> Iterable[tuple[str, NDArray[np.float32]]]:
    for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=False):
        values = np.frombuffer(raw[: len(raw) // 4 * 4], np.float32)
        if values.size == np.prod(tuple(output.shape)):
            yield output.name, values.reshape(tuple(output.shape))
