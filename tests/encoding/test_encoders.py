from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from dafh.deadline import Deadline
from dafh.encoding.onnx import OnnxEncoder
from dafh.encoding.port import Encoder
from dafh.encoding.scripted import ScriptedEncoder
from dafh.encoding.triton import MAX_BATCH, TritonEncoder, read_description
from dafh.errors import (
    DafhError,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    Misconfigured,
    Unavailable,
)
from dafh.settings import CHECKOUT
from dafh.stack import Stack

REPOSITORY = CHECKOUT / "model_repository"


def images(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, 1, side, side), dtype=np.uint8)


@pytest.mark.stack
def test_triton_says_what_onnx_runtime_says(stack: Stack) -> None:
    served, local = TritonEncoder(stack.triton.address, 1), OnnxEncoder(REPOSITORY, 1)
    assert served.model == local.model
    batch = images(MAX_BATCH + 3, local.model.side)
    deadline = Deadline.after(60)
    ours, theirs = (encoder.encode(batch, deadline, saliency=True) for encoder in (served, local))
    for bits in local.model.bits:
        assert np.abs(ours.hashes[bits] - theirs.hashes[bits]).max() <= 1e-5
    assert np.abs(ours.logits - theirs.logits).max() <= 1e-4
    assert ours.saliency is not None
    assert theirs.saliency is not None
    assert np.abs(ours.saliency - theirs.saliency).max() <= 1e-5
    served.close()


@pytest.mark.stack
def test_an_unloaded_version_is_named_as_such(stack: Stack) -> None:
    encoder = TritonEncoder(stack.triton.address, 9)
    with pytest.raises(FailedPrecondition) as caught:
        encoder.encode(images(1, 128), Deadline.after(10))
    assert caught.value.reason == "MODEL_NOT_LOADED"
    encoder.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"calibration": {"out_of_distribution": {"threshold": 1.0, "prototypes": ["AAAA"]}}},
        {"bits": [64]},
        {"bits": []},
        {"calibration": {"by_a_later_release": 1}},
        {"imaging_version": 99},
    ],
)
def test_a_description_that_is_not_understood_is_no_loaded_model(changes: dict[str, Any]) -> None:
    said = json.loads(OnnxEncoder(REPOSITORY, 2).model.model_dump_json())
    assert read_description(json.dumps(said)).version == 2
    with pytest.raises(FailedPrecondition) as caught:
        read_description(json.dumps({**said, **changes}))
    assert caught.value.reason == "MODEL_NOT_LOADED"


@pytest.mark.stack
def test_triton_carries_the_prototypes_of_version_2(stack: Stack) -> None:
    served, local = TritonEncoder(stack.triton.address, 2), OnnxEncoder(REPOSITORY, 2)
    assert served.model == local.model
    fitted = served.model.calibration.out_of_distribution
    assert fitted is not None
    assert len(fitted.prototypes) == 4 * len(served.model.classes)
    served.close()


def test_a_server_that_is_away_is_unavailable_within_the_deadline() -> None:
    encoder = TritonEncoder("127.0.0.1:1", 1)
    with pytest.raises((Unavailable, DeadlineExceeded)):
        encoder.encode(images(1, 128), Deadline.after(1))
    assert not encoder.ready(Deadline.after(1))
    encoder.close()


class Answers(grpc.GenericRpcHandler):
    """A Triton that answers every call as INTERNAL, with the same words."""

    def __init__(self, words: str) -> None:
        self._words = words

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Take a call of any name."""
        del handler_call_details

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            del request
            context.abort(grpc.StatusCode.INTERNAL, self._words)

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("message: Stub process 'dafh_0_1' is not healthy.", Unavailable),
        ("onnx runtime error 2: not enough space", Internal),
    ],
)
def test_a_model_process_that_died_is_waited_for_and_a_defect_is_not(
    words: str, fault: type[DafhError]
) -> None:
    server = grpc.server(ThreadPoolExecutor(2), [Answers(words)])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    encoder = TritonEncoder(address, 1)
    with pytest.raises(fault) as caught:
        encoder.encode(images(1, 128), Deadline.after(20))
    assert caught.value.waiting_helps is (fault is Unavailable)
    encoder.close()
    server.stop(0).wait()


def test_a_version_that_is_not_on_disk_is_refused() -> None:
    with pytest.raises(Misconfigured, match="version 99"):
        OnnxEncoder(REPOSITORY, 99)


def test_the_scripted_double_has_the_shape_of_the_real_encoder() -> None:
    real: Encoder = OnnxEncoder(REPOSITORY, 1)
    double: Encoder = ScriptedEncoder()
    ours, theirs = (
        encoder.encode(images(2, encoder.model.side), Deadline.never(), saliency=True)
        for encoder in (double, real)
    )
    assert {b: h.shape for b, h in ours.hashes.items()} == {
        b: h.shape for b, h in theirs.hashes.items()
    }
    for encoded in (ours, theirs):
        assert all(h.dtype == np.float32 and np.abs(h).max() <= 1 for h in encoded.hashes.values())
