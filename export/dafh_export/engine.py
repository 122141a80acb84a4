"""The port to TensorRT: what is built, for what, with which options."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from dafh.deadline import Deadline
from dafh_export.configuration import BATCH_SIZES, Profile, profiles

#: Name of a compiled engine in a version folder, as Triton wants it.
PLAN_FILE = "model.plan"


class HardwareCompatibility(StrEnum):
    """On which GPUs a plan runs besides those like the one it was built on.

    The values are TensorRT's ``HardwareCompatibilityLevel``; all but the first cost speed.
    """

    NONE = "NONE"
    AMPERE_PLUS = "AMPERE_PLUS"
    SAME_COMPUTE_CAPABILITY = "SAME_COMPUTE_CAPABILITY"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a plan is built, and so where it runs."""

    #: Version of the library, ``11.1.0.106``.
    tensorrt: str
    #: Product name of the GPU, ``NVIDIA H100 80GB HBM3``.
    gpu: str


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How a plan is built."""

    profiles: tuple[Profile, ...] = profiles(BATCH_SIZES)
    hardware: HardwareCompatibility = HardwareCompatibility.NONE
    #: Whether later releases of the same major version of TensorRT may run it too.
    version_compatible: bool = False
    #: Most memory that a kernel may use besides its tensors, bytes.
    workspace: int = 1 << 30

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that tell options apart."""
        return hashlib.sha256(repr(asdict(self)).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Built:
    """What a builder hands back."""

    plan: bytes
    #: What TensorRT said meanwhile.
    log: str
    #: Its engine inspector's description of every layer, JSON.
    layers: str


class EngineBuilder(Protocol):
    """Compiles a model file for one kind of GPU."""

    def target(self) -> Target:
        """Return what this builder builds for; fails at once where it cannot build.

        Raises
        ------
        Misconfigured
            There is no TensorRT, or no GPU.
        """
        ...

    def build(
        self, model_file: Path, options: BuildOptions, timing_cache: Path, deadline: Deadline
    ) -> Built:
        """Compile `model_file`; it computes in the types that the graph names.

        Parameters
        ----------
        model_file
            ONNX.
        options
            How.
        timing_cache
            File of measured kernels, read where it exists and written afterwards: the next build
            for the same GPU takes a fraction of the time.
        deadline
            When it passes, the build is given up.

        Raises
        ------
        FailedPrecondition
            TensorRT refuses the graph.
        DeadlineExceeded
            It took too long.
        """
        ...
