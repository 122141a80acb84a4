"""Checkpoint to ONNX: uint8 in, normalisation inside, every output named as it is served."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import onnx
import onnxslim
import torch
from torch import Tensor, nn

from dafh.codes import BITS
from dafh.encoding.onnx import MODEL_FILE
from dafh.encoding.port import IMAGE, LOGITS, SALIENCY, ModelVersion, hash_tensor
from dafh.imaging.image import IMAGING_VERSION
from dafh.writing import write_atomically
from dafh_export.checkpoint import CHECKPOINT_FILE, load_checkpoint
from dafh_export.model_file import describe, model_hash, share_weights, strip
from dafh_export.provenance import PROVENANCE_FILE, provenance

OPSET = 18
OUTPUTS = [*(hash_tensor(bits) for bits in BITS), LOGITS, SALIENCY]


class Served(nn.Module):
    """The network with its outputs in a row, as a graph has them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors named `OUTPUTS`."""
        outputs = self.network(images)
        return (*outputs.hashes.values(), outputs.logits, outputs.saliency)


def export_onnx(run: Path, out: Path) -> ModelVersion:
    """Write ``model.onnx`` and ``provenance.json`` of a run to `out`; return its description.

    The same checkpoint gives the same bytes of ``model.onnx``. The description lies in the file
    under the metadata key ``dafh``; its version number is 0 until the repository gives it one.

    Raises
    ------
    InvalidInput
        The folder holds no checkpoint.
    """
    checkpoint = load_checkpoint(run)
    model = trace(checkpoint.network, checkpoint.side)
    description = ModelVersion(
        version=0,
        hash=model_hash(model),
        imaging_version=IMAGING_VERSION,
        side=checkpoint.side,
        bits=BITS,
        classes=checkpoint.classes,
    )
    describe(model, description)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / MODEL_FILE, model.SerializeToString(deterministic=True))
    origin = provenance(run / CHECKPOINT_FILE, description.hash)
    write_atomically(out / PROVENANCE_FILE, f"{origin.model_dump_json(indent=2)}\n".encode())
    return description


def trace(network: nn.Module, side: int) -> onnx.ModelProto:
    """Return a network's graph: simplified, checked, shapes inferred, nothing of this machine.

    Parameters
    ----------
    network
        Maps uint8 ``[N, 1, side, side]`` to `dafh.model.network.Outputs`.
    side
        Of the input, pixels; the batch size stays open.
    """
    example = torch.zeros(2, 1, side, side, dtype=torch.uint8)
    with tempfile.TemporaryDirectory(prefix="dafh-export-") as folder, warnings.catch_warnings():
        draft = Path(folder) / MODEL_FILE
        # The TorchScript exporter is deprecated but its graph is smaller and its bytes repeatable.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Served(network).eval(),
            (example,),
            draft,
            input_names=[IMAGE],
            output_names=OUTPUTS,
            dynamic_axes={name: {0: "batch"} for name in [IMAGE, *OUTPUTS]},
            opset_version=OPSET,
            dynamo=False,
        )
        model = onnxslim.slim(onnx.load(draft))
    strip(model)
    share_weights(model)
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return model
