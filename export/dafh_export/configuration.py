"""Triton's model configuration, written from one description for every backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from dafh.codes import BITS
from dafh.encoding.port import IMAGE, LOGITS, MODEL, SALIENCY, ModelVersion, hash_tensor
from dafh.encoding.triton import MAX_BATCH


@dataclass(frozen=True, slots=True)
class Variant:
    """How one kind of server runs the model."""

    #: Path of the file below the model's folder.
    file: str
    platform: str = ""
    backend: str = ""
    #: Instances and where they run.
    instances: int = 1
    kind: str = "KIND_GPU"
    #: Longest wait for a fuller batch, microseconds.
    queue_delay: int = 500


VARIANTS = (
    Variant("config.pbtxt", platform="tensorrt_plan"),
    Variant("configs/cpu.pbtxt", backend="python", instances=2, kind="KIND_CPU", queue_delay=0),
    Variant("configs/onnx.pbtxt", platform="onnxruntime_onnx", backend="onnxruntime", instances=2,
            kind="KIND_CPU", queue_delay=0),
)  # fmt: skip


def configuration(variant: Variant, versions: Sequence[ModelVersion]) -> str:
    """Return the text of a variant's configuration file.

    Parameters
    ----------
    variant
        Which server.
    versions
        The versions in the repository, of equal tensors; each is described in a parameter, which is
        where gateway and jobs read it.
    """
    newest = versions[-1]
    group = model_config_pb2.ModelInstanceGroup
    config = model_config_pb2.ModelConfig(
        name=MODEL,
        platform=variant.platform,
        backend=variant.backend,
        max_batch_size=MAX_BATCH,
        input=[_input(newest)],
        output=[_output(name, dims) for name, dims in _outputs(newest).items()],
        instance_group=[group(count=variant.instances, kind=group.Kind.Value(variant.kind))],
        dynamic_batching=model_config_pb2.ModelDynamicBatching(
            max_queue_delay_microseconds=variant.queue_delay
        ),
        version_policy=model_config_pb2.ModelVersionPolicy(
            all=model_config_pb2.ModelVersionPolicy.All()
        ),
    )
    for version in versions:
        config.parameters[version.parameter].string_value = version.model_dump_json()
    text: str = text_format.MessageToString(config)
    return text


def _input(model: ModelVersion) -> model_config_pb2.ModelInput:
    return model_config_pb2.ModelInput(
        name=IMAGE,
        data_type=model_config_pb2.DataType.Value("TYPE_UINT8"),
        dims=[1, model.side, model.side],
    )


def _output(name: str, dims: Sequence[int]) -> model_config_pb2.ModelOutput:
    return model_config_pb2.ModelOutput(
        name=name, data_type=model_config_pb2.DataType.Value("TYPE_FP32"), dims=dims
    )


def _outputs(model: ModelVersion) -> Mapping[str, Sequence[int]]:
    cells = model.side // 8
    return {
        **{hash_tensor(bits): [bits] for bits in BITS},
        LOGITS: [len(model.classes)],
        SALIENCY: [cells, cells],
    }
