"""ONNX files of ours: what is hashed, and what they say of themselves."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from pydantic import ValidationError

from dafh.encoding.onnx import METADATA, MODEL_FILE
from dafh.encoding.port import ModelVersion
from dafh.errors import InvalidInput, Reason

#: Key of the file's own metadata that names its precision; absent in the exported, fp32, graph.
PRECISION = "dafh_precision"


class Precision(StrEnum):
    """In what numbers a graph computes; what is put into the ONNX, not a flag of a builder."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    FP8 = "fp8"

    @property
    def file(self) -> str:
        """Name of the model file of this precision in a run or version folder."""
        return MODEL_FILE if self is Precision.FP32 else f"model.{self}.onnx"


def model_hash(model: onnx.ModelProto) -> str:
    """Return the SHA-256 of graph, weights and operator sets, hexadecimal.

    What else a file says, of its producer or of our description, does not count.
    """
    bare = onnx.ModelProto(opset_import=model.opset_import, graph=model.graph)
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def strip(model: onnx.ModelProto) -> None:
    """Remove what an exporter may write source paths into: doc strings and metadata."""
    graph = model.graph
    # Cleared one by one: whether an empty string is written is part of the bytes.
    for top in (model, graph):
        top.ClearField("doc_string")
        top.ClearField("metadata_props")
    for node in graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    for tensor in graph.initializer:
        tensor.ClearField("doc_string")
        tensor.ClearField("metadata_props")
    for value in (*graph.value_info, *graph.input, *graph.output):
        value.ClearField("doc_string")
        value.ClearField("metadata_props")


def share_weights(model: onnx.ModelProto) -> None:
    """Keep equal weights once: a network that looks at an image twice is written twice."""
    first: dict[bytes, str] = {}
    kept: dict[str, str] = {}
    for tensor in list(model.graph.initializer):
        bare = onnx.TensorProto()
        bare.CopyFrom(tensor)
        bare.ClearField("name")
        digest = hashlib.sha256(bare.SerializeToString(deterministic=True)).digest()
        kept[tensor.name] = first.setdefault(digest, tensor.name)
        if kept[tensor.name] != tensor.name:
            model.graph.initializer.remove(tensor)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = kept.get(name, name)


def describe(model: onnx.ModelProto, description: ModelVersion, precision: str = "") -> None:
    """Put the description into the file's own metadata."""
    entries = {METADATA: description.model_dump_json()}
    if precision:
        entries[PRECISION] = precision
    onnx.helper.set_model_props(model, entries)


def load_model(path: Path) -> onnx.ModelProto:
    """Read a model file of ours.

    Raises
    ------
    InvalidInput
        It is not there or no ONNX file.
    """
    try:
        return onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise InvalidInput(
            Reason.ARGUMENT_INVALID,
            f"There is no {path}.",
            remedy="Write it with `dafh export onnx`.",
        ) from None
    except DecodeError:
        raise InvalidInput(
            Reason.ARGUMENT_INVALID,
            f"{path} is no ONNX file, or only a part of one.",
            remedy="Write it again with `dafh export onnx`.",
        ) from None


def read_description(model: onnx.ModelProto) -> ModelVersion:
    """Return what a model file says of itself; its graph, where fp32, must have the hash it says.

    Raises
    ------
    InvalidInput
        It says nothing, or its graph is another than the one described.
    """
    entries = {entry.key: entry.value for entry in model.metadata_props}
    try:
        description = ModelVersion.model_validate_json(entries.get(METADATA, ""))
    except ValidationError:
        raise InvalidInput(
            Reason.ARGUMENT_INVALID,
            "The ONNX file does not say what model it is.",
            remedy="Use one that `dafh export onnx` wrote.",
        ) from None
    if PRECISION not in entries and model_hash(model) != description.hash:
        raise InvalidInput(
            Reason.ARGUMENT_INVALID,
            f"The ONNX file is not the model {description.hash[:12]} that it says it is.",
            remedy="It was changed after its export: write it again with `dafh export onnx`.",
        )
    return description


def read_precision(model: onnx.ModelProto) -> Precision:
    """Return the precision that was put into a model file."""
    said = [entry.value for entry in model.metadata_props if entry.key == PRECISION]
    return Precision(said[0]) if said else Precision.FP32
