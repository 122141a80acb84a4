"""A real Triton, told what the chart tells it: health for anybody, the rest for who may."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import trustme

from dafh.deadline import Deadline
from dafh.encoding.triton import TritonServer
from dafh.errors import Unavailable
from dafh.security.tls import TlsFiles, client_credentials
from dafh_local.triton import build_runtime, command, sweep_shared_memory
from tests.chaos.triton import Triton
from tests.index.servers import free_ports
from tests.k8s.chart import manifests_of
from tests.k8s.rules_of_programs import TRITON_METRICS

pytestmark = pytest.mark.stack
HOST = "rel-dafh-triton.imaging.svc"
READY = grpc.ChannelConnectivity.READY
#: Of a connection, where the chart says minutes.
AGE_MS = 3_000
#: Of the server from a wheel, which has the python backend only.
OWN = ("--backend-directory", "--backend-config")


@dataclass
class Served:
    """A Triton as in the cluster."""

    folder: Path
    health: int
    grpc: int
    metrics: int

    def get(self, port: int, path: str, data: bytes | None = None) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port}{path}", data, timeout=10
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def client(self, who: str) -> TritonServer:
        files = TlsFiles(
            self.folder / f"{who}.crt", self.folder / f"{who}.key", self.folder / "ca.crt"
        )
        return TritonServer(f"127.0.0.1:{self.grpc}", client_credentials(files), server_name=HOST)


def issue(folder: Path, ca: trustme.CA, name: str, host: str) -> None:
    leaf = ca.issue_cert(host)
    (folder / f"{name}.crt").write_bytes(leaf.cert_chain_pems[0].bytes())
    key = folder / f"{name}.key"
    key.touch(0o600)
    key.write_bytes(leaf.private_key_pem.bytes())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("triton")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.crt")
    issue(folder, ca, "tls", HOST)
    issue(folder, ca, "client", "client.example")
    issue(folder, trustme.CA(), "stranger", "client.example")
    triton = Triton(folder)
    ports = dict(zip(("8000", "8001", "8002"), free_ports(3), strict=True))
    build_runtime(triton.plan)
    own = command(triton.plan)
    told = manifests_of("minimal").workload("triton").main
    repository = next(word for word in own.arguments if "--model-repository" in word)
    words = [str(word).replace("/etc/dafh/tls", str(folder)) for word in told["args"]]
    words = [re.sub(r"(?<=port=)\d+", lambda one: str(ports[one[0]]), word) for word in words]
    words = [word.replace("--model-config-name=onnx", "--model-config-name=cpu") for word in words]
    words = [repository if "--model-repository" in word else word for word in words]
    words += [word for word in own.arguments if word.startswith(OWN)]
    words = [re.sub(r"(?<=connection-age=)\d+", str(AGE_MS), word) for word in words]
    # On loopback, which in a pod it is not.
    words += [f"--{kind}-address=127.0.0.1" for kind in ("http", "grpc", "metrics")]
    (folder / "bin").mkdir()
    (folder / "bin" / "tritonserver").symlink_to(own.arguments[0])
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*told["command"], *words],
            cwd=folder,
            env={
                "PATH": f"{folder / 'bin'}:{os.defpath}",
                "LD_LIBRARY_PATH": own.environment["LD_LIBRARY_PATH"],
                "ORT_DISABLE_TELEMETRY": "1",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    found = Served(folder, *ports.values())
    try:
        end = time.monotonic() + 120
        while not _ready(found):
            assert process.poll() is None, (folder / "log").read_text()[-3000:]
            assert time.monotonic() < end, (folder / "log").read_text()[-3000:]
            time.sleep(0.1)
        yield found
        process.send_signal(signal.SIGTERM)
        # It is the server that is told to stop, and no shell around it, which would end by the
        # signal. 1: it ran out of its --exit-timeout-secs, as on a machine that many share.
        assert process.wait(60) in {0, 1}
    finally:
        process.kill()
        process.wait()
        sweep_shared_memory(folder)


def _ready(served: Served) -> bool:
    try:
        return served.get(served.health, "/v2/health/ready")[0] == 200
    except urllib.error.URLError:
        return False


def test_probes_are_answered(served: Served) -> None:
    pod = manifests_of("minimal").workload("triton").main
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert served.get(served.health, pod[probe]["httpGet"]["path"])[0] == 200


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/v2", None),
        ("/v2/models/dafh", None),
        ("/v2/models/dafh/config", None),
        ("/v2/models/dafh/stats", None),
        ("/v2/models/dafh/infer", b"{}"),
        ("/v2/repository/index", b"{}"),
        ("/v2/repository/models/dafh/unload", b"{}"),
        ("/v2/systemsharedmemory/status", None),
        ("/v2/trace/setting", None),
        ("/v2/logging", None),
    ],
)
def test_nothing_else_is_answered_over_http(served: Served, path: str, data: bytes | None) -> None:
    status, told = served.get(served.health, path, data)
    assert status == 403, told
    assert "restricted" in told


def test_who_has_our_certificate_is_served_and_nobody_else(served: Served) -> None:
    known, stranger = served.client("client"), served.client("stranger")
    assert known.loaded(Deadline.after(20)) == (1, 2)
    with pytest.raises(Unavailable):
        stranger.loaded(Deadline.after(5))
    known.close()
    stranger.close()


def test_a_connection_ends_so_that_names_are_looked_up_again(served: Served) -> None:
    """A gateway finds Tritons that came later; its calls do not notice."""
    states: queue.SimpleQueue[grpc.ChannelConnectivity] = queue.SimpleQueue()
    files = TlsFiles(*(served.folder / name for name in ("client.crt", "client.key", "ca.crt")))
    options = (("grpc.ssl_target_name_override", HOST),)
    channel = grpc.secure_channel(
        f"127.0.0.1:{served.grpc}", client_credentials(files), options=options
    )
    with contextlib.closing(channel), contextlib.closing(served.client("client")) as client:
        channel.subscribe(states.put, try_to_connect=True)
        end, seen = time.monotonic() + 60, [states.get(timeout=20)]
        while READY not in seen or seen[-1] is READY:
            assert time.monotonic() < end, seen
            assert client.loaded(Deadline.after(20)) == (1, 2)
            with contextlib.suppress(queue.Empty):
                seen.append(states.get(timeout=0.1))


def test_what_is_counted_by_is_measured(served: Served) -> None:
    status, text = served.get(served.metrics, "/metrics")
    assert status == 200
    for name in TRITON_METRICS:
        assert f"\n{name}{{" in text
