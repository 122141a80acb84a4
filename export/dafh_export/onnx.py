"""Checkpoint to ONNX: uint8 in, normalisation inside, every output named as it is served."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from dafh.codes import BITS
from dafh.encoding.onnx import METADATA, MODEL_FILE
from dafh.encoding.port import IMAGE, LOGITS, SALIENCY, ModelVersion, hash_tensor
from dafh.imaging.image import IMAGING_VERSION
from dafh_export.checkpoint import Checkpoint

OPSET = 18
OUTPUTS = [*(hash_tensor(bits) for bits in BITS), LOGITS, SALIENCY]


class Served(nn.Module):
    """The network with its outputs in a row, as a graph has them."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.network = checkpoint.network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors named `OUTPUTS`."""
        outputs = self.network(images)
        return (*outputs.hashes.values(), outputs.logits, outputs.saliency)


def export_onnx(checkpoint: Checkpoint, out: Path) -> ModelVersion:
    """Write ``model.onnx`` to `out` and return its description.

    The same checkpoint gives the same bytes. Source paths that the exporter leaves in the graph
    are stripped. The description lies in the file under the metadata key ``dafh``; its version
    number is 0 until the repository gives it one.
    """
    out.mkdir(parents=True, exist_ok=True)
    draft = out / f"{MODEL_FILE}.part"
    example = torch.zeros(2, 1, checkpoint.side, checkpoint.side, dtype=torch.uint8)
    with warnings.catch_warnings():
        # The TorchScript exporter is deprecated but its graph is smaller and its bytes repeatable.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Served(checkpoint).eval(),
            (example,),
            draft,
            input_names=[IMAGE],
            output_names=OUTPUTS,
            dynamic_axes={name: {0: "batch"} for name in [IMAGE, *OUTPUTS]},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load(draft)
    _strip(model)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model, full_check=True)
    description = ModelVersion(
        version=0,
        hash=hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest(),
        imaging_version=IMAGING_VERSION,
        side=checkpoint.side,
        bits=BITS,
        classes=checkpoint.classes,
    )
    described = model.metadata_props.add()
    described.key, described.value = METADATA, description.model_dump_json()
    draft.write_bytes(model.SerializeToString(deterministic=True))
    draft.replace(out / MODEL_FILE)
    return description


def _strip(model: onnx.ModelProto) -> None:
    model.doc_string = ""
    del model.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
