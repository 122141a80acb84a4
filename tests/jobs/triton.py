"""A Triton of a test's own: it serves two versions of the model, and can be ended and started."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import onnx

from dafh.codes import BITS
from dafh.deadline import Deadline
from dafh.encoding.port import hash_tensor
from dafh.encoding.triton import TritonEncoder
from dafh.settings import CHECKOUT
from dafh_local.environment import TritonEnvironment
from dafh_local.plan import Plan, Ports
from dafh_local.settings import LocalSettings
from dafh_local.triton import build_runtime, command, sweep_shared_memory
from tests.index.servers import UNTIL_PARENT_ENDS, free_ports

#: Model hash of version 2, which turns every bit of version 1.
SECOND = "ef" * 32


class TritonServer:
    """A Triton process; a context manager.

    Parameters
    ----------
    folder
        For its models and log.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        repository = folder / "repository"
        shutil.copytree(CHECKOUT / "model_repository", repository)
        _add_second(repository / "dafh")
        triton, metrics = free_ports(2)
        self._folder = folder.resolve()
        self._plan = Plan(
            data_dir=self._folder,
            ports=Ports(gateway=1, triton=triton, triton_metrics=metrics, milvus=1),
            environment=TritonEnvironment(LocalSettings().triton_home.resolve()),
            model_repository=repository,
            model_version=1,
            bits=64,
        )
        #: ``host:port``.
        self.address = f"127.0.0.1:{triton}"

    def start(self) -> None:
        """Start, or start again; return when both versions are served."""
        sweep_shared_memory(self._folder)
        build_runtime(self._plan)
        made = command(self._plan)
        library_path = made.environment["LD_LIBRARY_PATH"]
        program = UNTIL_PARENT_ENDS.replace("os.path.dirname(sys.argv[1])", repr(library_path))
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program, *made.arguments],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = Deadline.after(60)
        for version in (1, 2):
            encoder = TritonEncoder(self.address, version)
            while not encoder.ready(deadline):
                assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
                time.sleep(0.05)
            encoder.close()

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()
        self._process.wait()
        sweep_shared_memory(self._folder)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.kill()


def _add_second(models: Path) -> None:
    """Publish version 2 beside version 1."""
    shutil.copytree(models / "1", models / "2")
    model = onnx.load(models / "2" / "model.onnx")
    for name in map(hash_tensor, BITS):
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = [f"{one}_former" if one == name else one for one in names]
        model.graph.node.append(onnx.helper.make_node("Neg", [f"{name}_former"], [name]))
    onnx.save(model, models / "2" / "model.onnx")
    for file in models.rglob("*.pbtxt"):
        text = file.read_text()
        first = re.search(r'parameters \{\s*key: "dafh_version_1".*?\n\}\n', text, re.DOTALL)
        assert first is not None
        other = first[0].replace("dafh_version_1", "dafh_version_2")
        other = other.replace(r"\"version\":1,", r"\"version\":2,")
        file.write_text(text + re.sub(r"[0-9a-f]{64}", SECOND, other, count=1))
