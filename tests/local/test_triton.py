"""The embedded Triton: its own repository, nothing more reachable than needed, answers compared."""

from __future__ import annotations

import shutil
import stat
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from dafh.deadline import Deadline
from dafh.errors import Misconfigured, Reason
from dafh.settings import CHECKOUT
from dafh.stack import Stack
from dafh_local.environment import TritonEnvironment
from dafh_local.plan import Plan, Ports, shared_memory_prefix
from dafh_local.ports import port_of
from dafh_local.settings import LocalSettings
from dafh_local.triton import SHARED_MEMORY, TOLERANCE, build_runtime, sweep_shared_memory, verify

REPOSITORY = CHECKOUT / "model_repository"


def plan(data_dir: Path, repository: Path = REPOSITORY, triton_port: int = 1) -> Plan:
    return Plan(
        data_dir=data_dir,
        ports=Ports(gateway=1, triton=triton_port, triton_metrics=1, milvus=1),
        environment=TritonEnvironment(LocalSettings().triton_home.resolve()),
        model_repository=repository,
        model_version=1,
        bits=64,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_runtime_repository_adds_only_the_environment_and_leaves_the_source_alone(
    tmp_path: Path,
) -> None:
    before = contents(REPOSITORY)
    build_runtime(plan(tmp_path))
    build_runtime(plan(tmp_path))
    built = tmp_path / "triton" / "models" / "dafh"
    source = (REPOSITORY / "dafh" / "configs" / "cpu.pbtxt").read_text()
    copied = (built / "configs" / "cpu.pbtxt").read_text()
    assert copied.startswith(source)
    assert "EXECUTION_ENV_PATH" in copied[len(source) :]
    assert str(tmp_path) not in copied
    assert (built / "1" / "model.onnx").resolve() == REPOSITORY / "dafh" / "1" / "model.onnx"
    assert contents(REPOSITORY) == before


def test_no_path_of_a_machine_is_in_the_repository() -> None:
    for path in (REPOSITORY / "dafh").rglob("*.pbtxt"):
        assert "EXECUTION_ENV_PATH" not in path.read_text()


def test_version_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no model version 1") as caught:
        build_runtime(plan(tmp_path, repository=tmp_path))
    assert caught.value.reason is Reason.MODEL_NOT_FOUND


def test_sweep_takes_only_this_stacks_regions(tmp_path: Path) -> None:
    own = SHARED_MEMORY / f"{shared_memory_prefix(tmp_path)}x"
    other = SHARED_MEMORY / f"{shared_memory_prefix(tmp_path / 'other')}x"
    own.touch()
    other.touch()
    try:
        sweep_shared_memory(tmp_path)
        assert not own.exists()
        assert other.exists()
    finally:
        other.unlink()


@pytest.mark.stack
def test_known_tensor_agrees_with_the_same_file_in_this_process(
    tmp_path: Path, stack: Stack
) -> None:
    served = verify(plan(tmp_path, triton_port=port_of(stack.triton.address)), Deadline.after(20))
    assert served.version == 1


@pytest.mark.stack
def test_server_that_computes_something_else_is_refused(tmp_path: Path, stack: Stack) -> None:
    repository = tmp_path / "models"
    shutil.copytree(REPOSITORY / "dafh", repository / "dafh", symlinks=True)
    path = repository / "dafh" / "1" / "model.onnx"
    model = onnx.load(path)
    # The last bias: a change that moves an output by little more than is allowed.
    weights = min(
        (tensor for tensor in model.graph.initializer if tensor.dims == [64]),
        key=lambda tensor: tensor.name,
        default=model.graph.initializer[0],
    )
    changed = numpy_helper.to_array(weights) + 1000 * TOLERANCE
    weights.CopyFrom(numpy_helper.from_array(changed.astype("float32"), weights.name))
    onnx.save(model, path)
    served = plan(tmp_path, repository, port_of(stack.triton.address))
    with pytest.raises(Misconfigured, match="not what the model file says") as caught:
        verify(served, Deadline.after(20))
    assert caught.value.reason is Reason.ENCODER_WRONG


@pytest.mark.stack
def test_shared_memory_and_model_control_are_closed_to_other_programs(stack: Stack) -> None:
    client = InferenceServerClient(stack.triton.address)
    try:
        assert client.is_server_ready()
        for call in (
            lambda: client.register_system_shared_memory("x", "/x", 1),
            lambda: client.load_model("dafh"),
            lambda: client.unload_model("dafh"),
            client.get_log_settings,
        ):
            with pytest.raises(InferenceServerException, match="restricted"):
                call()
    finally:
        client.close()


@pytest.mark.stack
def test_shared_memory_of_the_stack_is_private(stack_data_dir: Path, stack: Stack) -> None:
    regions = list(SHARED_MEMORY.glob(f"{shared_memory_prefix(stack_data_dir)}*"))
    assert regions
    assert {stat.S_IMODE(region.stat().st_mode) for region in regions} == {0o600}


@pytest.mark.stack
def test_metrics_tell_of_inferences(stack: Stack) -> None:
    with closing(HTTPConnection(stack.triton_metrics, timeout=10)) as connection:
        connection.request("GET", "/metrics")
        assert b'nv_inference_count{model="dafh",version="1"}' in connection.getresponse().read()
