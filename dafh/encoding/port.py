"""The port that every encoder serves, and what it says of its model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.encoding.calibration import Calibration

#: Name of the model in the repository; tensors of another shape would need another name.
MODEL = "dafh"
#: Its tensors: uint8 ``[N, 1, S, S]`` in; float32 out.
IMAGE = "image"
LOGITS = "logits"
SALIENCY = "saliency"


class ModelVersion(BaseModel):
    """What gateway and jobs need to know of a served model version."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    #: The number of the version folder in the model repository.
    version: int
    #: SHA-256 of graph and weights, hexadecimal; codings are bound to it.
    hash: str
    imaging_version: int
    #: Side S of the model input, pixels.
    side: int
    bits: tuple[PositiveInt, ...] = Field(min_length=1)
    classes: tuple[str, ...]
    calibration: Calibration = Calibration()

    @model_validator(mode="after")
    def _prototypes_are_whole(self) -> Self:
        fitted = self.calibration.out_of_distribution
        widths = {len(prototype) for prototype in fitted.prototypes} if fitted else set()
        if not widths <= {sum(self.bits)}:
            raise ValueError("a prototype has one number for each bit of all lengths")
        return self

    @property
    def parameter(self) -> str:
        """Key under which Triton's model configuration carries this description as JSON."""
        return version_parameter(self.version)


def version_parameter(version: int) -> str:
    """Return the configuration parameter that describes a version."""
    return f"dafh_version_{version}"


def hash_tensor(bits: int) -> str:
    """Return the name of the output that holds the hash output of a length."""
    return f"hash_{bits}"


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the network says of ``N`` images."""

    #: bits -> float32 ``[N, bits]`` in [-1, 1].
    hashes: dict[int, NDArray[np.float32]]
    #: float32 ``[N, classes]``.
    logits: NDArray[np.float32]
    #: float32 ``[N, S/8, S/8]`` in [0, 1] where asked for, else ``None``.
    saliency: NDArray[np.float32] | None = None

    def code(self, row: int, bits: int) -> HashCode:
        """Return one image's code of one length."""
        return HashCode.of(self.hashes[bits][row])


class Encoder(Protocol):
    """Encodes images with one model version."""

    @property
    def model(self) -> ModelVersion:
        """The model version that answers."""
        ...

    def encode(
        self, images: NDArray[np.uint8], deadline: Deadline, *, saliency: bool = False
    ) -> Encoded:
        """Encode uint8 ``[N, 1, S, S]``.

        Raises
        ------
        Unavailable
            The encoder does not answer; waiting helps.
        DeadlineExceeded
            It did not answer in time.
        FailedPrecondition
            The model version is not loaded.
        """
        ...

    def close(self) -> None:
        """Let go of connections; the encoder cannot be used afterwards."""
        ...
