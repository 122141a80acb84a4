"""Triton's model configuration, written from one typed description for every kind of server.

The description is the tables below: `Signature` says which tensors a model has, `Variant` how one
kind of server runs it. Nothing in ``config.pbtxt`` or ``configs/`` is written by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from dafh.codes import BITS
from dafh.encoding.port import IMAGE, LOGITS, MODEL, SALIENCY, ModelVersion, hash_tensor
from dafh.encoding.triton import MAX_BATCH

#: Batch sizes that servers are made for: a single query, a few users at once, a job that indexes.
BATCH_SIZES = (1, 8, MAX_BATCH)
#: Requests that may wait; the next one is refused at once instead of making all wait longer.
MOST_WAITING = 256


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a model, its first dimension, the batch, left out."""

    name: str
    data_type: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """The tensors of a model; versions of one model name have the same."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def signature(model: ModelVersion) -> Signature:
    """Return the tensors that a model version has."""
    cells = model.side // 8
    return Signature(
        inputs=(Tensor(IMAGE, "TYPE_UINT8", (1, model.side, model.side)),),
        outputs=(
            *(Tensor(hash_tensor(bits), "TYPE_FP32", (bits,)) for bits in BITS),
            Tensor(LOGITS, "TYPE_FP32", (len(model.classes),)),
            Tensor(SALIENCY, "TYPE_FP32", (cells, cells)),
        ),
    )


@dataclass(frozen=True, slots=True)
class Profile:
    """Batch sizes that one TensorRT optimisation profile serves, and the one it is tuned for."""

    minimum: int
    optimum: int
    maximum: int


def profiles(batch_sizes: Sequence[int]) -> tuple[Profile, ...]:
    """Return one profile per batch size, from the one below it; together they serve every batch.

    Examples
    --------
    >>> [(one.minimum, one.maximum) for one in profiles((1, 8, 64))]
    [(1, 1), (2, 8), (9, 64)]
    """
    below = (0, *batch_sizes)
    return tuple(
        Profile(smaller + 1, size, size) for smaller, size in zip(below, batch_sizes, strict=False)
    )


@dataclass(frozen=True, slots=True)
class Variant:
    """How one kind of server runs the model."""

    #: Path of the file below the model's folder.
    file: str
    platform: str = ""
    backend: str = ""
    #: Instances and where they run.
    instances: int = 1
    kind: str = "KIND_CPU"
    #: Batch sizes of the optimisation profiles, for servers that have such; each is preferred.
    batch_sizes: tuple[int, ...] = ()
    #: Longest wait for a fuller batch, microseconds.
    queue_delay: int = 0
    #: Batch sizes that each instance is run with before it is said to be ready.
    warm_up: tuple[int, ...] = (1,)
    #: What of the server one execution takes, with ``--rate-limit=execution_count``: models that
    #: share a GPU share these.
    resources: tuple[tuple[str, int], ...] = ()
    #: Whether answers may come from the server's response cache. Its key is the input alone, so
    #: a request that wants the saliency would get an answer without it: see `docs/export.md`.
    response_cache: bool = False


VARIANTS = (
    Variant(
        "config.pbtxt",
        platform="tensorrt_plan",
        kind="KIND_GPU",
        batch_sizes=BATCH_SIZES,
        queue_delay=500,
        warm_up=BATCH_SIZES,
        resources=(("gpu", 1),),
    ),
    Variant("configs/cpu.pbtxt", backend="python", instances=2),
    Variant(
        "configs/onnx.pbtxt", platform="onnxruntime_onnx", backend="onnxruntime", instances=2
    ),
)  # fmt: skip


def configuration(variant: Variant, versions: Sequence[ModelVersion], name: str = MODEL) -> str:
    """Return the text of a variant's configuration file.

    Parameters
    ----------
    variant
        Which server.
    versions
        The versions in the repository, of equal signature; each is described in a parameter, which
        is where gateway and jobs read it.
    name
        Of the model.
    """
    tensors = signature(versions[-1])
    config = model_config_pb2.ModelConfig(
        name=name,
        platform=variant.platform,
        backend=variant.backend,
        max_batch_size=MAX_BATCH,
        input=[model_config_pb2.ModelInput(**_tensor(tensor)) for tensor in tensors.inputs],
        output=[model_config_pb2.ModelOutput(**_tensor(tensor)) for tensor in tensors.outputs],
        instance_group=[_instances(variant)],
        dynamic_batching=_batching(variant),
        version_policy=model_config_pb2.ModelVersionPolicy(
            all=model_config_pb2.ModelVersionPolicy.All()
        ),
        model_warmup=[_warm_up(batch, tensors) for batch in variant.warm_up],
        response_cache=model_config_pb2.ModelResponseCache(enable=variant.response_cache),
    )
    for version in versions:
        config.parameters[version.parameter].string_value = version.model_dump_json()
    text: str = text_format.MessageToString(config)
    return text


def _tensor(tensor: Tensor) -> dict[str, Any]:
    data_type = model_config_pb2.DataType.Value(tensor.data_type)
    return {"name": tensor.name, "data_type": data_type, "dims": tensor.dims}


def _instances(variant: Variant) -> model_config_pb2.ModelInstanceGroup:
    group = model_config_pb2.ModelInstanceGroup
    limiter = model_config_pb2.ModelRateLimiter
    return group(
        count=variant.instances,
        kind=group.Kind.Value(variant.kind),
        profile=[str(index) for index in range(len(variant.batch_sizes))],
        rate_limiter=limiter(
            resources=[
                limiter.Resource(name=name, count=count) for name, count in variant.resources
            ]
        )
        if variant.resources
        else None,
    )


def _batching(variant: Variant) -> model_config_pb2.ModelDynamicBatching:
    policy = model_config_pb2.ModelQueuePolicy
    return model_config_pb2.ModelDynamicBatching(
        preferred_batch_size=[size for size in variant.batch_sizes if size > 1],
        max_queue_delay_microseconds=variant.queue_delay,
        default_queue_policy=policy(
            timeout_action=policy.REJECT,
            allow_timeout_override=True,
            max_queue_size=MOST_WAITING,
        ),
    )


def _warm_up(batch: int, tensors: Signature) -> model_config_pb2.ModelWarmup:
    warm_up = model_config_pb2.ModelWarmup(name=f"batch of {batch}", batch_size=batch)
    for tensor in tensors.inputs:
        given = warm_up.inputs[tensor.name]
        given.data_type = model_config_pb2.DataType.Value(tensor.data_type)
        given.dims.extend(tensor.dims)
        given.random_data = True
    return warm_up
