"""Small model files for tests that run none, and runs for those that do."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper
from safetensors.torch import load_file, save_file

from dafh.codes import BITS
from dafh.encoding.port import ModelVersion
from dafh.settings import CHECKOUT
from dafh_export.model_file import Precision, describe, model_hash
from dafh_export.onnx import export_onnx

PUBLISHED = CHECKOUT / "model_repository" / "dafh" / "1"


def tiny_model(path: Path, precision: Precision = Precision.FP32, scale: float = 1.0) -> Path:
    """Write a file that says of itself what ours do; its graph only multiplies."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 32, 32])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["batch", 1, 32, 32])
    factor = helper.make_tensor("factor", TensorProto.FLOAT, [], [scale])
    graph = helper.make_graph(
        [helper.make_node("Mul", ["image", "factor"], ["answer"], name="only")],
        "tiny",
        [image],
        [answer],
        [factor],
    )
    model = helper.make_model(graph)
    described = ModelVersion(
        version=0, hash=model_hash(model), imaging_version=2, side=32, bits=BITS, classes=("a",)
    )
    describe(model, described, "" if precision is Precision.FP32 else precision)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def other_run(run: Path) -> Path:
    """Make a run of the published network with other weights in its last layers."""
    run.mkdir(parents=True)
    weights = load_file(PUBLISHED / "model.safetensors")
    generator = torch.Generator().manual_seed(3)
    for name, value in weights.items():
        if name.startswith("heads.") and name.endswith("project.weight"):
            weights[name] = torch.randn(value.shape, generator=generator)
    from safetensors import safe_open

    with safe_open(PUBLISHED / "model.safetensors", "pt") as file:
        save_file(weights, run / "model.safetensors", metadata=file.metadata())
    shutil.copyfile(PUBLISHED / "calibration.json", run / "calibration.json")
    export_onnx(run, run)
    return run
