"""What images in shared memory would save a job whose Triton is on the same machine.

    python -m bench.shared_memory

One program sends the same batch by turns in the message and in a region that Triton maps once, to
the model. Prints the median of what a batch took and the
processor time that sender and server spent on it, and how much of both the shorter way saves
(decision 0018). Triton is the stack's, without the lock on its shared memory protocol.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import shared_memory

from bench.environment import environment
from bench.processes import spent
from dafh.encoding.port import IMAGE, LOGITS, MODEL, hash_tensor
from dafh.encoding.triton import CHANNEL_OPTIONS, MAX_BATCH
from dafh.settings import ModelSettings
from tests.chaos.triton import Triton

SIDE, BITS = 128, 64
#: Turns of each way, and batches in a turn.
TURNS, BATCHES = 9, 4
REGION = "dafh-bench-images"

Send = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a batch took, milliseconds."""

    wall: float
    sender: float
    server: float


def main(words: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.shared_memory", description=__doc__)
    parser.add_argument("--turns", type=int, default=TURNS, help="of each way")
    turns: int = parser.parse_args(words).turns
    images = np.random.default_rng(0).integers(0, 256, (MAX_BATCH, 1, SIDE, SIDE), dtype=np.uint8)
    with (
        tempfile.TemporaryDirectory(prefix="dafh-bench-") as folder,
        Triton(Path(folder)) as triton,
        grpc.insecure_channel(triton.address, CHANNEL_OPTIONS) as channel,
    ):
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with mapped(stub, images) as by_region:
            ways = {"message": lambda: stub.ModelInfer(request(images)), "region": by_region}
            found = compared(ways, triton.pid, turns)
    about = environment()
    sys.stdout.write(f"{about['date']}: {about['machine']}; {MAX_BATCH} images of {SIDE}\u00b2\n")
    for name, cost in found.items():
        sys.stdout.write(
            f"{name}: {cost.wall:.2f} ms a batch; processor: sender {cost.sender:.2f} ms, "
            f"server {cost.server:.2f} ms\n"
        )
    message, region = found["message"], found["region"]
    work = message.sender + message.server
    saved = work - region.sender - region.server
    sys.stdout.write(
        f"saved: {1 - region.wall / message.wall:+.2%} of the time, {saved / work:+.2%} "
        "of the processor time\n"
    )


def request(images: np.ndarray | None = None) -> service_pb2.ModelInferRequest:
    """Return a request for the codes of images that it carries, or that lie in the region."""
    tensor = service_pb2.ModelInferRequest.InferInputTensor(
        name=IMAGE, datatype="UINT8", shape=(MAX_BATCH, 1, SIDE, SIDE)
    )
    if images is None:
        tensor.parameters["shared_memory_region"].string_param = REGION
        tensor.parameters["shared_memory_byte_size"].int64_param = MAX_BATCH * SIDE * SIDE
    output = service_pb2.ModelInferRequest.InferRequestedOutputTensor
    return service_pb2.ModelInferRequest(
        model_name=MODEL,
        model_version=str(ModelSettings().model_version),
        inputs=[tensor],
        outputs=[output(name=hash_tensor(BITS)), output(name=LOGITS)],
        raw_input_contents=[] if images is None else [images.tobytes()],
    )


@contextmanager
def mapped(stub: service_pb2_grpc.GRPCInferenceServiceStub, images: np.ndarray) -> Iterator[Send]:
    """Yield what copies images into a region that Triton has mapped, and asks for their codes."""
    key = f"/{REGION}-{os.getpid()}"
    handle = shared_memory.create_shared_memory_region(REGION, key, images.nbytes)
    try:
        stub.SystemSharedMemoryRegister(
            service_pb2.SystemSharedMemoryRegisterRequest(
                name=REGION, key=key, byte_size=images.nbytes
            )
        )

        def send() -> object:
            shared_memory.set_shared_memory_region(handle, [images])
            return stub.ModelInfer(request())

        # Triton lets go of a region a moment after its last answer, and of all where it ends.
        yield send
    finally:
        shared_memory.destroy_shared_memory_region(handle)


def compared(ways: dict[str, Send], server: int, turns: int) -> dict[str, Cost]:
    """Return what each way costs a batch, the ways by turns."""
    for send in ways.values():
        send()
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, send in ways.items():
            wall, sender, served = [], time.process_time(), spent(server)
            for _ in range(BATCHES):
                began = time.perf_counter()
                send()
                wall.append(1e3 * (time.perf_counter() - began))
            costs[name].append(
                Cost(
                    min(wall),
                    1e3 * (time.process_time() - sender) / BATCHES,
                    1e3 * (spent(server) - served) / BATCHES,
                )
            )
    return {
        name: Cost(*(median(getattr(one, part) for one in some) for part in Cost.__slots__))
        for name, some in costs.items()
    }


if __name__ == "__main__":
    main()
