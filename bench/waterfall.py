"""Where the time of one query goes, from what `bench.parts` measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a query."""

    name: str
    #: "bound" where a program that does no more would spend it too, "server" or "DAFH".
    whose: str
    ms: float
    #: Why it is not less; "" of a bound.
    why: str = ""


#: Step -> whose it is, the part that ends with it, the part before, and why it is not less.
STEPS: tuple[tuple[str, str, str, str, str], ...] = (
    ("the call: an echo of the same bytes", "bound", "echo", "", ""),
    ("decode: pixel_array and a resize", "bound", "pixel_array", "", ""),
    (
        "decode: limits, window, crop, metadata",
        "DAFH",
        "decode",
        "pixel_array",
        "what makes the same image of a file in training and in service, within limits",
    ),
    (
        "decode: in a process that may die",
        "DAFH",
        "worker",
        "decode",
        "a codec that crashes or hangs is one refused file and not an outage; the file and the "
        "image go through a pipe",
    ),
    ("infer: ONNX Runtime", "bound", "onnx", "", ""),
    (
        "infer: Triton",
        "server",
        "infer",
        "onnx",
        "a gRPC call, Triton's queue, and from there to a Python process and back through shared "
        "memory; a TensorRT plan on a GPU has no such process",
    ),
    (
        "infer: asking which model it was",
        "DAFH",
        "triton",
        "infer",
        "Triton's answer does not say by which weights it was made; without asking, codes of a "
        "model that was replaced meanwhile would be mixed with those of the one before",
    ),
    ("search: faiss", "bound", "faiss", "", ""),
    (
        "search: Milvus",
        "server",
        "milvus",
        "faiss",
        "a gRPC call through pymilvus and Milvus's own planning, whatever the size",
    ),
    (
        "search: of this tenant",
        "DAFH",
        "tenant",
        "milvus",
        "`tenant ==` stands in every search, whatever the collection, and Milvus compares it with "
        "every row",
    ),
    (
        "search: whole cases, order, ties",
        "DAFH",
        "rows",
        "tenant",
        "64 whole candidates, so that ties are settled and hits are read with one request; "
        "pymilvus makes a Python object of every field",
    ),
    (
        "search: not the same patient",
        "DAFH",
        "search",
        "rows",
        "instance, study and patient of the query are taken from the candidates",
    ),
)
REST = (
    "checks, admission, messages, log, audit",
    "DAFH",
    "identity, roles, room and limits are looked at before a message is read, and every call "
    "leaves a line in the log, metrics, and a record in the audit; and what the parts cost each "
    "other, which were timed one by one",
)


def steps_of(parts: Mapping[str, float]) -> list[Step]:
    """Return the steps of a query in order; together they last as long as the whole."""
    steps = [
        Step(name, whose, parts[end] - (parts[before] if before else 0.0), why)
        for name, whose, end, before, why in STEPS
    ]
    name, whose, why = REST
    return [*steps, Step(name, whose, parts["query"] - sum(step.ms for step in steps), why)]
