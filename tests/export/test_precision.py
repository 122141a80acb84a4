"""Precision is put into the graph: where, and where not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from dafh.errors import InvalidInput, Misconfigured
from dafh.imaging.phantom import phantom_images
from dafh.settings import CHECKOUT
from dafh_export.model_file import (
    Precision,
    load_model,
    read_description,
    read_precision,
    share_weights,
)
from dafh_export.parity import onnx_backend
from dafh_export.precision import (
    LEAST_CALIBRATION,
    delicate,
    depthwise,
    exactly,
    outside_convolutions,
    put_precision,
)

MODEL_FILE = CHECKOUT / "model_repository" / "dafh" / "1" / "model.onnx"


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return load_model(put_precision(MODEL_FILE, tmp_path_factory.mktemp("half"), Precision.FP16))


def weights(model: onnx.ModelProto, operator: str) -> dict[str, set[int]]:
    """Return the types of the weights of each node of an operator."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return {
        node.name: {types[name] for name in node.input if name in types}
        for node in model.graph.node
        if node.op_type == operator
    }


def test_dense_convolutions_are_in_half_precision_and_hash_heads_are_not(
    half: onnx.ModelProto,
) -> None:
    whole = set(depthwise(load_model(MODEL_FILE)))
    assert whole
    for name, types in weights(half, "Conv").items():
        assert types == {TensorProto.FLOAT if name in whole else TensorProto.FLOAT16}
    assert set().union(*weights(half, "MatMul").values()) == {TensorProto.FLOAT}


def test_servers_see_the_same_tensors_in_every_precision(half: onnx.ModelProto) -> None:
    whole = load_model(MODEL_FILE)
    for side in ("input", "output"):
        seen = [
            [(value.name, value.type.tensor_type.elem_type) for value in getattr(one.graph, side)]
            for one in (whole, half)
        ]
        assert seen[0] == seen[1]


def test_a_file_names_its_precision_and_the_model_that_it_is(half: onnx.ModelProto) -> None:
    assert read_precision(half) is Precision.FP16
    assert read_precision(load_model(MODEL_FILE)) is Precision.FP32
    assert read_description(half) == read_description(load_model(MODEL_FILE))


def test_what_stays_out_is_the_standardisation_and_all_after_the_last_convolution() -> None:
    model = load_model(MODEL_FILE)
    out = set(outside_convolutions(model))
    nodes = {node.name: node for node in model.graph.node}
    makers = {name: node.name for node in model.graph.node for name in node.output}
    assert makers["hash_64"] in out
    assert makers["logits"] in out
    assert next(node.name for node in model.graph.node if "image" in node.input) in out
    assert not any(nodes[name].op_type == "Conv" for name in out)
    assert len(out) < len(nodes) / 4


def test_delicate_convolutions_are_some_and_not_all() -> None:
    model = load_model(MODEL_FILE)
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    named = delicate(model)
    assert named[0] == convolutions[0]
    # 16 blocks, each with a depthwise one and two of squeeze-and-excitation.
    assert len(convolutions) / 2 < len(named) < len(convolutions)
    assert set(named) <= set(convolutions)


def test_a_name_is_excluded_and_no_longer_one_that_starts_so() -> None:
    import re

    (pattern,) = exactly(["/a.0/Conv"])
    assert re.match(pattern, "/a.0/Conv")
    assert not re.match(pattern, "/a.0/Conv_1")
    assert not re.match(pattern, "/ax0/Conv")


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
def test_eight_bits_need_images_to_calibrate_with(tmp_path: Path, precision: Precision) -> None:
    few = np.zeros((LEAST_CALIBRATION - 1, 1, 128, 128), np.uint8)
    for images in (None, few):
        with pytest.raises(InvalidInput, match="at least 64 images"):
            put_precision(MODEL_FILE, tmp_path, precision, images)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("precision", "zero"),
    [(Precision.INT8, TensorProto.INT8), (Precision.FP8, TensorProto.FLOAT8E4M3FN)],
)
def test_eight_bits_are_quantised_in_the_graph_and_can_be_run(
    tmp_path: Path, precision: Precision, zero: int
) -> None:
    images = phantom_images(LEAST_CALIBRATION, 9, 128)
    path = put_precision(MODEL_FILE, tmp_path, precision, images)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    model = load_model(path)
    # Weights are stored quantised, or quantised where they are used.
    stored = [
        types
        for operator in ("QuantizeLinear", "DequantizeLinear")
        for types in weights(model, operator).values()
    ]
    assert zero in set().union(*stored)
    answer, reference = (onnx_backend(one)(images[:8]) for one in (path, MODEL_FILE))
    for bits, hashes in answer.items():
        assert ((hashes > 0) == (reference[bits] > 0)).mean() > 0.8


def test_without_modelopt_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == "modelopt":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "modelopt", None)
    with pytest.raises(Misconfigured, match=r"dafh\[precision\]"):
        put_precision(MODEL_FILE, tmp_path / "out", Precision.FP16)
    assert not (tmp_path / "out").exists()


def test_a_network_that_looks_twice_is_not_written_twice() -> None:
    model = load_model(MODEL_FILE)
    size, graph = model.ByteSize(), model.graph
    expected = onnx_backend(MODEL_FILE)(phantom_images(2, 1, 128))
    for tensor in list(graph.initializer):
        again = graph.initializer.add()
        again.CopyFrom(tensor)
        again.name = f"{tensor.name}_again"
    for node in list(graph.node)[::2]:
        for index, name in enumerate(node.input):
            if any(one.name == f"{name}_again" for one in graph.initializer):
                node.input[index] = f"{name}_again"
    share_weights(model)
    assert model.ByteSize() <= size
    assert not any(name.endswith("_again") for node in graph.node for name in node.input)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (answer,) = session.run(["hash_64"], {"image": phantom_images(2, 1, 128)})
    assert np.abs(answer - expected[64]).max() <= 1e-6
