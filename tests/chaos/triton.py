"""A real Triton of its own: two versions of the model, loaded at will; killed, stopped."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import onnx
from onnx import helper
from tritonclient.grpc import InferenceServerClient

from dafh.codes import BITS
from dafh.encoding.port import hash_tensor
from dafh.settings import CHECKOUT
from dafh_local.environment import TritonEnvironment
from dafh_local.plan import Plan, Ports
from dafh_local.settings import LocalSettings
from dafh_local.triton import build_runtime, command, sweep_shared_memory
from tests.index.servers import free_ports

SOURCE = CHECKOUT / "model_repository" / "dafh"
#: Model hash of the second version.
SECOND = "cd" * 32
PATIENCE_S = 180.0
LONGEST_QUEUE = 256

#: Becomes its arguments; the kernel ends it when its parent ends (PR_SET_PDEATHSIG).
UNTIL_PARENT_ENDS = (
    "import ctypes, os, signal, sys;"
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL);"
    "os.environ['LD_LIBRARY_PATH'] = sys.argv[1];"
    "os.execv(sys.argv[2], sys.argv[2:])"
)


def second_version(repository: Path, model_hash: str = SECOND) -> None:
    """Publish a version 2 beside version 1: the same network, each bit of its codes turned."""
    folder = repository / "dafh" / "2"
    shutil.copytree(repository / "dafh" / "1", folder, dirs_exist_ok=True)
    model = onnx.load(folder / "model.onnx")
    names = {hash_tensor(bits) for bits in BITS}
    for node in model.graph.node:
        node.output[:] = [f"{name}_before" if name in names else name for name in node.output]
        node.input[:] = [f"{name}_before" if name in names else name for name in node.input]
    for name in sorted(names):
        model.graph.node.append(helper.make_node("Neg", [f"{name}_before"], [name]))
    onnx.save(model, folder / "model.onnx")
    describe(repository, 2, model_hash)


def describe(repository: Path, version: int, model_hash: str) -> None:
    """Write into the configurations what a version is, as that of version 1 but for its hash."""
    for file in (repository / "dafh").rglob("*.pbtxt"):
        text = file.read_text()
        (first,) = re.findall(r'parameters \{\s*key: "dafh_version_1".*?\n\}\n', text, re.DOTALL)
        block = first.replace("dafh_version_1", f"dafh_version_{version}")
        block = block.replace(r"\"version\":1", rf"\"version\":{version}")
        block = re.sub(r'\\"hash\\":\\"[0-9a-f]{64}', rf'\\"hash\\":\\"{model_hash}', block)
        if version != 1:
            text = re.sub(
                rf'parameters \{{\s*key: "dafh_version_{version}".*?\n\}}\n', "", text,
                flags=re.DOTALL,
            )  # fmt: skip
            file.write_text(text + block)
        else:
            file.write_text(text.replace(first, block))


class Triton:
    """A Triton process.

    Parameters
    ----------
    folder
        For its repository and log.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        shutil.copytree(SOURCE, self.repository / "dafh", symlinks=False)
        second_version(self.repository)
        self.port, self.metrics = free_ports(2)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def plan(self) -> Plan:
        return Plan(
            data_dir=self.folder,
            ports=Ports(gateway=1, triton=self.port, triton_metrics=self.metrics, milvus=1),
            environment=TritonEnvironment(LocalSettings().triton_home.resolve()),
            model_repository=self.repository,
            model_version=1,
            bits=64,
        )

    def start(self) -> None:
        """Start, or start again on the same ports; return when it serves."""
        self.spawn()
        self.wait()

    def spawn(self, *options: str) -> None:
        """Start, and do not wait."""
        sweep_shared_memory(self.folder)
        build_runtime(self.plan)
        made = command(self.plan)
        arguments = [
            one
            for one in made.arguments
            if "restricted-protocol" not in one and "control" not in one
        ]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-c", UNTIL_PARENT_ENDS, made.environment["LD_LIBRARY_PATH"],
                    *arguments, "--model-control-mode=explicit", "--load-model=dafh", *options,
                ],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )  # fmt: skip

    def wait(self) -> None:
        """Wait until it serves."""
        with InferenceServerClient(self.address) as client:
            self.await_(lambda: client.is_model_ready("dafh"))

    def await_(self, serves: Callable[[], object]) -> None:
        """Wait until something gives a truth and no error any more."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                if serves():
                    return
            except Exception:  # noqa: BLE001 - whatever a client says while it starts
                assert self._process is not None
                assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < end, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.05)

    def load(self, *versions: int, longest_queue: int = LONGEST_QUEUE) -> None:
        """Have it serve these versions, as their files and descriptions are now."""
        build_runtime(self.plan)
        config = self.config(versions, longest_queue)
        with InferenceServerClient(self.address) as client:
            client.load_model("dafh", config=config)

    def config(self, versions: tuple[int, ...], longest_queue: int = LONGEST_QUEUE) -> str:
        """Return the configuration with only some versions, as Triton takes it with a load."""
        with InferenceServerClient(self.address) as client:
            told = client.get_model_config("dafh", as_json=True)["config"]
        told["version_policy"] = {"specific": {"versions": [str(one) for one in versions]}}
        told["dynamic_batching"]["default_queue_policy"]["max_queue_size"] = longest_queue
        return json.dumps(told)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            sweep_shared_memory(self.folder)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.kill()
