"""Put a precision into the ONNX graph itself, with NVIDIA ModelOpt, on any machine.

TensorRT 11 is strongly typed: a builder computes in the types that the graph names, and has no
flags for others. What a graph says is also what ONNX Runtime computes, so parity is measured on a
CPU before anything is built on a GPU.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from dafh.encoding.port import IMAGE
from dafh.errors import InvalidInput, Misconfigured, Reason
from dafh.writing import write_atomically
from dafh_export.model_file import (
    Precision,
    describe,
    load_model,
    read_description,
    share_weights,
    strip,
)

#: Fewest images to find the ranges of activations with.
LEAST_CALIBRATION = 64
Calibration = NDArray[np.uint8]


def put_precision(
    source: Path, out: Path, precision: Precision, calibration: Calibration | None = None
) -> Path:
    """Write a model file in another precision to the folder `out`; return its path.

    Parameters
    ----------
    source
        Model file that `dafh export onnx` wrote.
    out
        Folder; the file is named by the precision.
    precision
        What to put in. The same source and calibration give the same graph.
    calibration
        uint8 ``[N, 1, S, S]``, images of the kind that will be served, for ``int8`` and ``fp8``.
        Never those that parity is measured on.

    Raises
    ------
    InvalidInput
        The source is not ours, or there are too few images to calibrate with.
    Misconfigured
        ModelOpt is not installed.
    """
    description = read_description(load_model(source))
    with tempfile.TemporaryDirectory(prefix="dafh-export-") as folder, _quiet():
        model = CONVERSIONS[precision](source, Path(folder), calibration)
    strip(model)
    share_weights(model)
    onnx.checker.check_model(model)
    describe(model, description, "" if precision is Precision.FP32 else precision)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / precision.file, model.SerializeToString(deterministic=True))
    return out / precision.file


def _keep(source: Path, _folder: Path, _calibration: Calibration | None) -> onnx.ModelProto:
    return load_model(source)


def _halve(source: Path, _folder: Path, _calibration: Calibration | None) -> onnx.ModelProto:
    """Compute in fp16 from the first convolution to the last, and in fp32 before and after.

    Before them the statistics of a whole image are summed, beyond what fp16 can hold; after them a
    sign is taken, where rounding is what would flip bits. Both cost next to nothing. Depthwise
    convolutions, a small part of the work, stay in fp32 too: their rounding turned most of the bits
    that fp16 turned.
    """
    from modelopt.onnx.autocast import convert_to_mixed_precision

    model = load_model(source)
    converted: onnx.ModelProto = convert_to_mixed_precision(
        str(source),
        low_precision_type="fp16",
        keep_io_types=True,
        nodes_to_exclude=exactly([*outside_convolutions(model), *depthwise(model)]),
        # Which nodes to keep is said above, not found by running the model on noise.
        data_max=np.inf,
        providers=["cpu"],
    )
    return converted


def _quantise(mode: str) -> Callable[[Path, Path, Calibration | None], onnx.ModelProto]:
    def convert(source: Path, folder: Path, calibration: Calibration | None) -> onnx.ModelProto:
        if calibration is None or len(calibration) < LEAST_CALIBRATION:
            raise InvalidInput(
                Reason.ARGUMENT_INVALID,
                f"{mode} needs at least {LEAST_CALIBRATION} images to find ranges with.",
                remedy="Name a manifest of training images with --calibration and --root.",
                subject="calibration",
            )
        from modelopt.onnx.quantization import quantize

        model = load_model(source)
        target = folder / "quantised.onnx"
        # It writes other files beside its source.
        draft = folder / source.name
        draft.write_bytes(source.read_bytes())
        quantize(
            str(draft),
            quantize_mode=mode,
            calibration_data={IMAGE: calibration},
            calibration_method="max",
            calibration_eps=["cpu"],
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=exactly([*outside_convolutions(model), *delicate(model)]),
            high_precision_dtype="fp32",
            output_path=str(target),
            log_level="ERROR",
        )
        return onnx.load(target)

    return convert


CONVERSIONS: dict[Precision, Callable[[Path, Path, Calibration | None], onnx.ModelProto]] = {
    Precision.FP32: _keep,
    Precision.FP16: _halve,
    Precision.INT8: _quantise("int8"),
    Precision.FP8: _quantise("fp8"),
}


def outside_convolutions(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes before the first or after the last convolution of their path.

    They are the standardisation of the image, and fusion, hash heads and classifier.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    takers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    after: dict[str, bool] = {}
    for node in model.graph.node:
        sources = (makers[name] for name in node.input if name in makers)
        after[node.name] = _is_convolution(node) or any(after[one.name] for one in sources)
    before: dict[str, bool] = {}
    for node in reversed(model.graph.node):
        targets = (taker for name in node.output for taker in takers.get(name, []))
        before[node.name] = _is_convolution(node) or any(before[one.name] for one in targets)
    return [node.name for node in model.graph.node if not (after[node.name] and before[node.name])]


def delicate(model: onnx.ModelProto) -> list[str]:
    """Return the names of the convolutions that eight bits are too few for.

    The first one, whose input is the image; depthwise ones, whose channels differ in range and of
    which each weight counts; and those of squeeze-and-excitation, which weigh whole channels.
    """
    convolutions = [node for node in model.graph.node if _is_convolution(node)]
    kept = {*_pooled(model), *depthwise(model)}
    return [node.name for index, node in enumerate(convolutions) if index == 0 or node.name in kept]


def depthwise(model: onnx.ModelProto) -> list[str]:
    """Return the names of the convolutions that see one channel each."""
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if _is_convolution(node) and weights[node.input[1]][1] == 1
    ]


def _pooled(model: onnx.ModelProto) -> set[str]:
    """Return the names of convolutions whose input is one value per channel."""
    sizes = {
        info.name: [dimension.dim_value for dimension in info.type.tensor_type.shape.dim]
        for info in model.graph.value_info
    }
    return {
        node.name
        for node in model.graph.node
        if _is_convolution(node) and sizes.get(node.input[0], [])[2:] == [1, 1]
    }


def _is_convolution(node: onnx.NodeProto) -> bool:
    return bool(node.op_type == "Conv")


def exactly(names: list[str]) -> list[str]:
    """Return patterns that match these names and no others."""
    return [f"^{re.escape(name)}$" for name in names]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep ModelOpt, and what it stands on, from reporting every node."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        from onnx_graphsurgeon.logger import G_LOGGER

        severity, G_LOGGER.severity = G_LOGGER.severity, G_LOGGER.CRITICAL
        try:
            yield
        finally:
            G_LOGGER.severity = severity
    except ModuleNotFoundError as error:
        raise _not_installed(error) from None
    finally:
        logging.disable(before)


def _not_installed(error: ModuleNotFoundError) -> Misconfigured:
    return Misconfigured(
        Reason.NOT_INSTALLED,
        f"Putting a precision into a model needs NVIDIA ModelOpt; {error.name} is not installed.",
        remedy="Run `pip install 'dafh[precision]'`.",
    )
