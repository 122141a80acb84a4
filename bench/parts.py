"""Each part of a query beside the least that its work could cost, by turns on a running stack.

Decoding is held against `pixel_array` and a resize, inference against ONNX Runtime, searching
against faiss, the call against an echo of as many bytes: everything in one run and in turn, so that
a busy machine slows all alike. What is left of a whole query is the gateway's own.
"""

from __future__ import annotations

import io
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median

import cv2
import faiss
import grpc
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from bench.index import asking_alone
from bench.load import WARM_UP
from bench.servers import METHOD, OPTIONS, serve_threads
from bench.stack import coding_of, encoder_of, index_of
from dafh.client import Client, Target
from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.encoding.port import LOGITS, hash_tensor
from dafh.encoding.triton import TritonEncoder, TritonServer
from dafh.imaging.decode import decode
from dafh.imaging.image import PatientKeyer
from dafh.imaging.pool import DecoderPool
from dafh.index.collection import expression
from dafh.index.connection import Connection
from dafh.index.port import Exclude
from dafh.retrieval.retrieve import Options, Retriever
from dafh.security.keys import load_key
from dafh.stack import Stack

TOP_K = 10
#: Seconds that no measurement takes.
HOUR = 3600.0


def parts(
    stack: Stack, codes: NDArray[np.uint8], made: Iterator[bytes], rounds: int
) -> dict[str, float]:
    """Return the median milliseconds of each part and of its bound, by name.

    Parameters
    ----------
    codes
        Those of the archive, uint8 ``[N, bits / 8]``.
    made
        Files with the same image of which no two are equal.
    """
    never, data = Deadline.after(HOUR), next(made)
    encoder, coding = encoder_of(stack), coding_of(stack)
    model = encoder.model
    keyer = PatientKeyer(load_key(stack.patient_key_file), coding.tenant)
    image = decode(data, side=model.side, keyer=keyer)
    pixels = image.pixels[None]
    encoded = encoder.encode(pixels, never)
    output = encoded.hashes[coding.bits][0]
    code = HashCode.of(output)
    about = image.metadata
    exclude = Exclude(about.sop_instance_uid, about.study_instance_uid, about.patient_key)
    packed = np.frombuffer(code.packed, np.uint8)[None]
    faiss.omp_set_num_threads(1)
    exact = faiss.IndexBinaryFlat(coding.bits)
    exact.add(codes)
    outputs = [*(hash_tensor(bits) for bits in model.bits), LOGITS]
    with ExitStack() as end:
        # Before anything here has threads or channels.
        echo = end.enter_context(echoing())
        pool = end.enter_context(DecoderPool(workers=1))
        client = end.enter_context(Client(Target(stack.gateway.address, retry=False)))
        server = TritonServer(stack.triton.address)
        end.callback(server.close)
        triton = TritonEncoder(server, model.version)
        index = index_of(stack)
        end.callback(index.close)
        connection = Connection(stack.milvus_uri, Deadline.after(60))
        end.callback(connection.close)
        alone = asking_alone(connection, coding)
        retriever, options = Retriever(triton, index), Options(top_k=TOP_K)
        return by_turns(
            {
                "query": lambda: client.retrieve(dicom=next(made), top_k=TOP_K),
                "echo": partial(echo, data),
                "small echo": partial(echo, b""),
                "small echo, as a future": lambda: echo.future(b"").result(),
                "pixel_array": partial(plain_decode, data, model.side),
                "decode": partial(decode, data, side=model.side, content_hash=False),
                "worker": partial(
                    pool.decode, data, side=model.side, content_hash=False, deadline=never
                ),
                "onnx": partial(encoder.encode, pixels, never),
                "infer": partial(server.infer, model.version, pixels, outputs, never),
                "triton": partial(triton.encode, pixels, never),
                "faiss": partial(exact.search, packed, TOP_K),
                "milvus": partial(alone, code),
                "tenant": partial(alone, code, expression(coding)),
                "excluded by Milvus": partial(alone, code, expression(coding, exclude=exclude)),
                "rows": partial(retriever.by_code, code, output, options, never),
                "search": partial(retriever.by_encoded, image, encoded, options, never),
            },
            rounds,
        )


def by_turns(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median milliseconds of each way."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(WARM_UP + rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if turn >= WARM_UP:
                taken[name].append(1000 * (time.perf_counter() - began))
    return {name: round(median(times), 3) for name, times in taken.items()}


def plain_decode(data: bytes, side: int) -> NDArray[np.generic]:
    """Decode as a program without DAFH would do first."""
    values = dcmread(io.BytesIO(data)).pixel_array
    return cv2.resize(values, (side, side), interpolation=cv2.INTER_AREA)


@contextmanager
def echoing() -> Iterator[grpc.UnaryUnaryMultiCallable[bytes, bytes]]:
    """Yield what sends bytes to a gRPC server that only answers, a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve_threads, args=(theirs, 0.0))
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{ours.recv()}", OPTIONS) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
            yield call
    finally:
        ours.send("stop")
        server.join(10)
