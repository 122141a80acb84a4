"""What is called of TensorRT exists: checked against its real Python bindings."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

import dafh_export.tensorrt as adapter
from dafh.deadline import Deadline
from dafh.errors import Misconfigured, Reason
from dafh.settings import CHECKOUT
from dafh_export.engine import BuildOptions, HardwareCompatibility
from tests.export.strict_tensorrt import Recorded, load_bindings, strict_module

MODEL_FILE = CHECKOUT / "model_repository" / "dafh" / "1" / "model.fp16.onnx"


@pytest.fixture(scope="session")
def bindings(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return load_bindings(tmp_path_factory.mktemp("stand-in"))


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


@pytest.fixture
def trt(bindings: ModuleType, recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = strict_module(bindings, recorded)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


def test_the_whole_build_calls_only_what_the_bindings_declare(
    trt: ModuleType, recorded: Recorded, tmp_path: Path
) -> None:
    options = BuildOptions(hardware=HardwareCompatibility.AMPERE_PLUS, version_compatible=True)
    timings = tmp_path / "timing.cache"
    built = adapter.TensorRtBuilder().build(MODEL_FILE, options, timings, Deadline.after(60))
    assert built.plan
    assert built.layers == '{"Layers": []}'
    assert "Building engine" in built.log
    assert timings.read_bytes()

    flag = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert recorded.of("Builder", "create_network") == [{"flags": flag}]
    assert [
        (given["input"], given["min"], given["opt"], given["max"])
        for given in recorded.of("IOptimizationProfile", "set_shape")
    ] == [
        ("image", (low, 1, 128, 128), (high, 1, 128, 128), (high, 1, 128, 128))
        for low, high in ((1, 1), (2, 8), (9, 64))
    ]
    assert {"pool": trt.MemoryPoolType.WORKSPACE, "pool_size": 1 << 30} in recorded.of(
        "IBuilderConfig", "set_memory_pool_limit"
    )
    assert recorded.of("IBuilderConfig", "hardware_compatibility_level") == [
        {"value": trt.HardwareCompatibilityLevel.AMPERE_PLUS}
    ]
    flags = [given["flag"] for given in recorded.of("IBuilderConfig", "set_flag")]
    assert flags == [trt.BuilderFlag.VERSION_COMPATIBLE]
    assert recorded.of("IBuilderConfig", "progress_monitor")
    assert recorded.of("EngineInspector", "get_engine_information") == [
        {"format": trt.LayerInformationFormat.JSON}
    ]


def test_a_passed_deadline_ends_the_build_at_its_next_step(trt: ModuleType) -> None:
    limit = adapter._limit(trt, Deadline.after(60))
    assert limit.step_complete("tactics", 1) is True  # type: ignore[attr-defined]  # TensorRT's own
    late = adapter._limit(trt, Deadline(0.0))
    assert late.step_complete("tactics", 1) is False  # type: ignore[attr-defined]  # TensorRT's own
    assert late.passed


def test_every_option_has_its_member_in_tensorrt(trt: ModuleType) -> None:
    assert {one.value for one in HardwareCompatibility} <= set(
        trt.HardwareCompatibilityLevel.__members__
    )


def test_the_doubles_refuse_what_the_bindings_lack(trt: ModuleType) -> None:
    assert not hasattr(trt.BuilderFlag, "FP16") or trt.__version__.startswith("10.")
    builder = trt.Builder(trt.Logger())
    with pytest.raises(AttributeError):
        builder.build_cuda_engine(None)
    config = builder.create_builder_config()
    with pytest.raises(TypeError):
        config.set_memory_pool_limit(trt.BuilderFlag.TF32, 1)
    with pytest.raises(TypeError):
        config.set_memory_pool_limit(pool=trt.MemoryPoolType.WORKSPACE, size=1)
    with pytest.raises(AttributeError):
        config.max_workspace_size = 1
    with pytest.raises(TypeError):
        config.profiling_verbosity = 3


def test_without_tensorrt_it_says_what_is_missing_and_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(Misconfigured, match=r"needs TensorRT.*nvcr\.io/nvidia/tensorrt") as caught:
        adapter.TensorRtBuilder().target()
    assert caught.value.reason is Reason.NOT_INSTALLED


def test_an_old_tensorrt_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType("tensorrt")
    vars(old)["__version__"] = "8.6.1"
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(Misconfigured, match=r"8\.6\.1 is too old"):
        adapter.TensorRtBuilder().target()


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def absent() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    with pytest.raises(Misconfigured, match="No GPU can be asked for") as caught:
        adapter.gpu_name()
    assert "nvidia.com/gpu" in caught.value.remedy


@pytest.mark.parametrize(
    ("names", "refused"), [(["A", "A"], False), (["A", "B"], True), ([], True)]
)
def test_a_plan_is_for_one_kind_of_gpu(
    monkeypatch: pytest.MonkeyPatch, names: list[str], refused: bool
) -> None:
    import pynvml

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: len(names))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda handle: names[handle])
    if refused:
        with pytest.raises(Misconfigured, match="one kind of GPU"):
            adapter.gpu_name()
    else:
        assert adapter.gpu_name() == "A"
