"""Engines built with Polygraphy on TensorRT 10 and 11; what it takes is in NVIDIA's containers.

Only this module knows TensorRT. A test runs it against the names, enum members and signatures of
the real Python bindings.
"""

from __future__ import annotations

import importlib
import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dafh.codes import BITS
from dafh.deadline import Deadline
from dafh.encoding.port import IMAGE, hash_tensor
from dafh.errors import DeadlineExceeded, FailedPrecondition, Misconfigured, Reason
from dafh_export.engine import BuildOptions, Built, Target
from dafh_export.model_file import load_model, read_description

#: Oldest release whose networks can be strongly typed as we need them.
OLDEST = (10, 0)
CONTAINER = "nvcr.io/nvidia/tensorrt:YY.MM-py3, of the same YY.MM as the Triton image"


class ProgressMonitor(Protocol):
    """A ``tensorrt.IProgressMonitor`` of ours."""

    #: Whether the deadline passed and the build was told to stop.
    passed: bool


class TensorRtBuilder:
    """`dafh_export.engine.EngineBuilder` on the GPU of this machine."""

    def target(self) -> Target:
        """Return this machine's TensorRT and GPU.

        Raises
        ------
        Misconfigured
            There is no TensorRT, or no GPU, or GPUs of several kinds.
        """
        trt = import_tensorrt()
        _require("polygraphy.backend.trt", "Polygraphy", "Run `pip install 'dafh[engine]'`.")
        return Target(trt.__version__, gpu_name())

    def build(
        self, model_file: Path, options: BuildOptions, timing_cache: Path, deadline: Deadline
    ) -> Built:
        """Compile a model file; see `EngineBuilder.build`."""
        trt = import_tensorrt()
        from polygraphy.exception import PolygraphyException

        side = read_description(load_model(model_file)).side
        limit = _limit(trt, deadline)
        with _logged() as said:
            try:
                plan = _compile(trt, model_file, side, options, timing_cache, limit)
                layers = _inspect(trt, plan)
            except PolygraphyException:
                if limit.passed:
                    raise DeadlineExceeded(
                        Reason.DEADLINE_EXCEEDED,
                        "TensorRT did not finish the engine before the deadline.",
                        remedy="Give it more time with --minutes.",
                    ) from None
                raise FailedPrecondition(
                    Reason.MODEL_NOT_LOADED,
                    f"TensorRT cannot build {model_file.name}: {_last_words(said.getvalue())}",
                    remedy="Use a TensorRT 10 or 11 of NVIDIA's container for this GPU.",
                ) from None
        return Built(plan=plan, log=said.getvalue(), layers=layers)


def import_tensorrt() -> ModuleType:
    """Return the module ``tensorrt``.

    Raises
    ------
    Misconfigured
        It is not there, cannot be loaded, or is too old.
    """
    remedy = f"Run this in {CONTAINER}."
    try:
        trt = importlib.import_module("tensorrt")
    except (ImportError, OSError) as error:
        # An OSError where the Python part is there and the library behind it is not.
        raise Misconfigured(
            Reason.NOT_INSTALLED,
            f"Building an engine needs TensorRT, which cannot be imported here ({error}).",
            remedy=remedy,
        ) from None
    version = tuple(int(part) for part in trt.__version__.split(".")[:2])
    if version < OLDEST:
        raise Misconfigured(
            Reason.NOT_INSTALLED,
            f"TensorRT {trt.__version__} is too old: 10 or 11 is needed.",
            remedy=remedy,
        )
    return trt


def gpu_name() -> str:
    """Return the product name of this machine's GPU.

    Raises
    ------
    Misconfigured
        There is none, or there are several kinds: a plan runs on one.
    """
    nvml = _require("pynvml", "NVIDIA's management library", "Run `pip install 'dafh[engine]'`.")
    try:
        nvml.nvmlInit()
        handles = [
            nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())
        ]
        names = sorted({nvml.nvmlDeviceGetName(handle) for handle in handles})
    except nvml.NVMLError as error:
        raise Misconfigured(
            Reason.LIBRARY_MISSING,
            f"No GPU can be asked for here ({error}).",
            remedy="Run it on a machine with an NVIDIA GPU and driver; in Kubernetes, request "
            "nvidia.com/gpu.",
        ) from None
    if len(names) != 1:
        raise Misconfigured(
            Reason.SETTING_INVALID,
            f"A plan is for one kind of GPU; here are {', '.join(names) or 'none'}.",
            remedy="Let the container see GPUs of one kind only.",
        )
    return str(names[0])


@contextmanager
def running(plan: bytes) -> Iterator[Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]]:
    """Load a plan; yield what maps a batch to its hash outputs in the order of `BITS`."""
    import_tensorrt()
    from polygraphy.backend.trt import EngineFromBytes, TrtRunner

    with _logged(), TrtRunner(EngineFromBytes(plan)) as runner:

        def run(images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
            answer = runner.infer({IMAGE: images})
            # Copied: the runner gives its own buffers, and fills them again.
            return [np.array(answer[hash_tensor(bits)], np.float32) for bits in BITS]

        yield run


def _compile(
    trt: ModuleType,
    model_file: Path,
    side: int,
    options: BuildOptions,
    timing_cache: Path,
    limit: ProgressMonitor,
) -> bytes:
    from polygraphy.backend.trt import (
        CreateConfig,
        EngineBytesFromNetwork,
        NetworkFromOnnxPath,
        Profile,
    )

    shapes = [
        Profile().add(
            IMAGE, *((batch, 1, side, side) for batch in (one.minimum, one.optimum, one.maximum))
        )
        for one in options.profiles
    ]
    config = CreateConfig(
        profiles=shapes,
        hardware_compatibility_level=getattr(trt.HardwareCompatibilityLevel, options.hardware),
        version_compatible=options.version_compatible,
        memory_pool_limits={trt.MemoryPoolType.WORKSPACE: options.workspace},
        profiling_verbosity=trt.ProfilingVerbosity.DETAILED,
        load_timing_cache=str(timing_cache),
        progress_monitor=limit,
    )
    network = NetworkFromOnnxPath(str(model_file), strongly_typed=True)
    build = EngineBytesFromNetwork(network, config=config, save_timing_cache=str(timing_cache))
    return bytes(build())


def _inspect(trt: ModuleType, plan: bytes) -> str:
    from polygraphy.backend.trt import EngineFromBytes

    inspector = EngineFromBytes(plan)().create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _limit(trt: ModuleType, deadline: Deadline) -> ProgressMonitor:
    """Return a progress monitor that ends the build when the deadline passed."""

    class Limit(trt.IProgressMonitor):  # type: ignore[misc, name-defined]  # no types outside CUDA
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.passed = False

        def phase_start(self, _name: str, _parent: str | None, _steps: int) -> None:
            pass

        def phase_finish(self, _name: str) -> None:
            pass

        def step_complete(self, _name: str, _step: int) -> bool:
            try:
                deadline.remaining("the engine was built")
            except DeadlineExceeded:
                self.passed = True
            return not self.passed

    limit: ProgressMonitor = Limit()
    return limit


@contextmanager
def _logged() -> Iterator[io.StringIO]:
    """Collect what Polygraphy and, through it, TensorRT say, instead of printing it."""
    from polygraphy.logger import G_LOGGER

    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logger = logging.getLogger("Polygraphy")
    before = (G_LOGGER.use_python_logging_system, logger.level, logger.propagate)
    G_LOGGER.use_python_logging_system = True
    logger.addHandler(handler)
    logger.setLevel(1)
    logger.propagate = False
    try:
        # TensorRT's own information is "verbose" to Polygraphy.
        with G_LOGGER.verbosity(G_LOGGER.VERBOSE):
            yield said
    finally:
        logger.removeHandler(handler)
        G_LOGGER.use_python_logging_system = before[0]
        logger.setLevel(before[1])
        logger.propagate = before[2]


def _require(module: str, title: str, remedy: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise Misconfigured(
            Reason.NOT_INSTALLED,
            f"Building an engine needs {title}; {error.name} is not installed.",
            remedy=remedy,
        ) from None


def _last_words(said: str) -> str:
    lines = [line for line in said.splitlines() if line.startswith("[E]")]
    return lines[-1][4:300] if lines else "it did not say why."
