"""A file that ends its decoder costs its own call, and the gateway says so."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from google.rpc import error_details_pb2

from dafh.client import Client
from dafh.errors import DafhError, InvalidInput, Reason
from dafh.imaging.phantom import phantoms
from dafh.stack import Stack
from dafh.v1 import archive_service_pb2
from tests.imaging.processes import children, until

pytestmark = pytest.mark.stack

#: Seconds that a call gets to reach a decoder, and how often it may be late.
ARRIVAL = 0.5
ATTEMPTS = 10


def decoders(stack: Stack) -> list[int]:
    return [pid for zygote in children(stack.gateway.pid) for pid in children(zygote)]


def crash_during(stack: Stack, call: object) -> object:
    """Return what a call gives whose decoder is ended while it has the file."""
    assert callable(call)
    stopped = decoders(stack)
    assert stopped
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(call)
        time.sleep(ARRIVAL)
        for pid in stopped:
            # Comes before anything the process would do itself.
            os.kill(pid, signal.SIGSEGV)
            os.kill(pid, signal.SIGCONT)
        try:
            given = answer.result(60)
        except DafhError as error:
            given = error
    # One that is not dead yet would be lent to the next call, and cost that one too.
    until(lambda: not {*stopped} & {*decoders(stack)})
    return given


def test_a_dying_decoder_is_the_calls_own_invalid_argument(stack: Stack) -> None:
    # Each time another file: what was encoded within the last second needs no decoder.
    files = [phantom.data for phantom in phantoms(ATTEMPTS, 78)]
    data = files[0]
    with Client(stack.gateway.address) as client:
        assert client.encode(dicom=data).hashes
        answers = (crash_during(stack, partial(client.encode, dicom=one)) for one in files[1:])
        error = next(answer for answer in answers if isinstance(answer, DafhError))
        assert isinstance(error, InvalidInput)
        assert error.reason is Reason.DECODER_CRASHED
        assert "SIGSEGV" in error.message
        assert client.encode(dicom=data).hashes


def test_a_dying_decoder_ends_one_item_of_a_stream_and_not_the_stream(stack: Stack) -> None:
    one, other = (phantom.data for phantom in phantoms(2, 79))
    with Client(stack.gateway.address) as client:

        def index(data: bytes) -> archive_service_pb2.IndexCasesResponse:
            (result,) = client.index([archive_service_pb2.IndexCasesRequest(dicom=data)])
            return result

        results = (crash_during(stack, lambda: index(one)) for _ in range(ATTEMPTS))
        result = next(
            result
            for result in results
            if isinstance(result, archive_service_pb2.IndexCasesResponse)
            and result.WhichOneof("result") == "error"
        )
        info = error_details_pb2.ErrorInfo()
        assert result.error.details[0].Unpack(info)
        assert info.reason == "DECODER_CRASHED"
        assert index(other).WhichOneof("result") == "indexed"
