"""The gateway's pod, as the chart renders it, beside a real Triton and a real Milvus."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydicom import dcmread
from typer.testing import CliRunner

from dafh.cli import build as commands
from dafh.client import Client, Target, Tls, question
from dafh.client.requests import upload
from dafh.errors import Reason, Unavailable
from dafh.imaging.phantom import Phantom, phantoms
from dafh.v1 import retrieval_service_pb2
from tests.chaos.triton import Triton
from tests.images.pods import GROUP, Played, Site, playing
from tests.index.servers import PASSWORD, SERVER_NAME, USER, StandaloneServer, free_ports
from tests.k8s.chart import FULL_NAME, NAMESPACE, Manifests, parse, render_texts, values

pytestmark = [pytest.mark.images, pytest.mark.stack, pytest.mark.timeout(900)]

TRITON = f"{FULL_NAME}-triton.{NAMESPACE}.svc"
GATEWAY = "gateway.example"
CONTAINER = "gateway"
PROCESSES = 2
PHANTOMS = list(phantoms(12, 41))


@dataclass(frozen=True)
class Cluster:
    """Servers, and what the chart makes for them."""

    site: Site
    manifests: Manifests
    port: int
    http: int
    ca: bytes
    token: str

    def client(self, *, retry: bool = True) -> Client:
        tls = Tls(ca=self.ca, server_name=GATEWAY)
        target = Target(f"127.0.0.1:{self.port}", tls, token=lambda: self.token, retry=retry)
        return Client(target, timeout=60)

    def get(self, path: str) -> int:
        """Return the status that the HTTP port answers with; 0 where nobody does."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0


def chart_values(milvus: StandaloneServer) -> dict[str, Any]:
    """Return the chart's smallest example, with the servers that are here."""
    found = values("minimal")
    found["images"]["registry"] = "localhost"
    found["index"] = {
        "uri": f"https://127.0.0.1:{milvus.port}",
        "serverName": SERVER_NAME,
        "credentials": {"secretName": "dafh-milvus", "key": "credentials"},
    }
    found["tls"] = {"milvus": {"secretName": "dafh-milvus-tls"}}
    # The name in Triton's certificate stays that of its Service, which is no name here.
    named = {"TRITON_SERVER_NAME": TRITON}
    # Several processes, as by default.
    found["gateway"] |= {"cpus": PROCESSES, "drainSeconds": 3, "settings": named}
    found["jobs"] = {
        "phantoms": {
            "command": "index",
            "sources": ["/data"],
            "settings": named,
            "volumes": [{"claim": "images", "path": "/data"}],
        }
    }
    return found


def issue(ca: trustme.CA, host: str) -> dict[str, bytes]:
    """Return a Secret with a certificate."""
    leaf = ca.issue_cert(host)
    return {
        "tls.crt": leaf.cert_chain_pems[0].bytes(),
        "tls.key": leaf.private_key_pem.bytes(),
        "ca.crt": ca.cert_pem.bytes(),
    }


@pytest.fixture(scope="module")
def cluster(images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    ca = trustme.CA()
    server = issue(ca, TRITON)
    for name, content in server.items():
        (folder / name).touch(0o600)
        (folder / name).write_bytes(content)
    for name in ("triton", "milvus"):
        (folder / name).mkdir()
    triton = Triton(folder / "triton")
    with StandaloneServer(folder / "milvus") as milvus:
        try:
            triton.spawn(
                "--grpc-use-ssl=1", "--grpc-use-ssl-mutual=1",
                f"--grpc-server-cert={folder / 'tls.crt'}",
                f"--grpc-server-key={folder / 'tls.key'}", f"--grpc-root-cert={folder / 'ca.crt'}",
            )  # fmt: skip
            yield furnish(folder, ca, triton, milvus)
        finally:
            triton.kill()


def furnish(folder: Path, ca: trustme.CA, triton: Triton, milvus: StandaloneServer) -> Cluster:
    accounts = folder / "accounts"
    words = ["token", str(accounts), "test", "--role", "reader", "--role", "indexer"]
    token = CliRunner().invoke(commands(words), words).stdout.strip()
    # The ports after that of HTTP are the processes' own.
    port, http = sorted(free_ports(2))
    site = Site(
        folder,
        {
            "tls": issue(ca, GATEWAY),
            "client-tls": issue(ca, "dafh.example"),
            "milvus-tls": {
                "tls.crt": (milvus.folder / "client.pem").read_bytes(),
                "tls.key": (milvus.folder / "client.key").read_bytes(),
                "ca.crt": (milvus.folder / "ca.pem").read_bytes(),
            },
            "milvus-credentials": {"credentials": f"{USER}:{PASSWORD}".encode()},
            "patient-key": {"key": b"5a" * 32},
            "accounts": {"accounts": accounts.read_bytes()},
        },
        addresses={
            "DAFH_LISTEN": f"127.0.0.1:{port}",
            "DAFH_HTTP_LISTEN": f"127.0.0.1:{http}",
            "DAFH_TRITON_ADDRESS": f"dns:///localhost:{triton.port}",
            "JOB_COMPLETION_INDEX": "0",
        },
    )
    manifests = parse(render_texts(chart_values(milvus)))
    return Cluster(site, manifests, port, http, ca.cert_pem.bytes(), token)


@pytest.fixture(scope="module")
def indexed(cluster: Cluster, images: dict[str, str]) -> dict[str, Any]:
    """Index phantoms by the rendered job; return its report."""
    data, journal = cluster.site.folder / "data", cluster.site.folder / "journal"
    for place in (data, journal):
        place.mkdir()
        os.chown(place, GROUP, GROUP)
    for one in PHANTOMS:
        (data / one.file_name).write_bytes(one.data)
    return cluster.site.run(
        images["jobs"],
        cluster.manifests.workload("jobs"),
        {"/data": data, "/var/lib/dafh": journal},
    )


@pytest.fixture
def pod(cluster: Cluster, indexed: dict[str, Any]) -> Iterator[Played]:
    workload = cluster.manifests.workload("gateway")
    with playing(cluster.site.pod(workload), workload.labels) as played:
        until(lambda: cluster.get("/readyz") == 200, played)
        yield played


def until(condition: Callable[[], object], played: Played, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, played.logs()[-3000:]
        time.sleep(0.2)


def finds(client: Client, phantom: Phantom) -> bool:
    """Say whether the first hit of an indexed image is itself."""
    hit = client.retrieve(dicom=phantom.data, top_k=3, include_same_patient=True).hits[0]
    return (hit.case.sop_instance_uid, hit.distance) == (instance(phantom), 0)


def instance(phantom: Phantom) -> str:
    return str(dcmread(BytesIO(phantom.data), stop_before_pixels=True).SOPInstanceUID)


def test_what_a_job_has_indexed_is_found_through_the_pod(
    cluster: Cluster, indexed: dict[str, Any], pod: Played
) -> None:
    assert (indexed["outcomes"], indexed["complete"]) == ({"added": len(PHANTOMS)}, True)
    with cluster.client() as client:
        for phantom in PHANTOMS[:4]:
            assert finds(client, phantom)
    (report,) = (cluster.site.folder / "journal" / "report").glob("report.json")
    assert report.stat().st_uid == GROUP


#: What the container finds out about itself.
LOOK = """
import importlib.util, json, os, pathlib, shutil
def writes(path):
    try:
        pathlib.Path(path, "probe").write_text("")
    except OSError as error:
        return error.strerror
    return "writes"
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
print(json.dumps({
    "user": [os.getuid(), os.getgid(), os.getgroups()],
    "writes": {path: writes(path) for path in ("/", "/opt/dafh", "/etc/dafh/tls", "/tmp")},
    "capabilities": [status[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapInh")],
    "no_new_privileges": status["NoNewPrivs"], "seccomp": status["Seccomp"],
    "modules": [name for name in ("torch", "pip", "pytest", "pyarrow", "matplotlib", "milvus_lite",
                                  "onnxruntime") if importlib.util.find_spec(name)],
    "programs": [name for name in ("cc", "gcc", "ld", "make", "pip", "curl") if shutil.which(name)],
}))
"""


def test_it_is_nobody_and_can_write_nothing(cluster: Cluster, pod: Played) -> None:
    seen = json.loads(pod.inside(LOOK))
    user, group, groups = seen["user"]
    assert (user, group) == (GROUP, GROUP)
    assert set(groups) <= {GROUP}
    assert seen["writes"] == {
        "/": "Read-only file system",
        "/opt/dafh": "Read-only file system",
        "/etc/dafh/tls": "Read-only file system",
        "/tmp": "writes",  # noqa: S108 - the one place where it may
    }
    assert set(seen["capabilities"]) == {"0000000000000000"}
    # A filter is in force (2), and no program gives rights.
    assert (seen["no_new_privileges"], seen["seccomp"]) == ("1", "2")
    assert seen["modules"] == []
    assert seen["programs"] == []


def test_each_processor_has_a_process_and_all_answer_as_one(cluster: Cluster, pod: Played) -> None:
    url = f"http://127.0.0.1:{cluster.http}/metrics"
    with urllib.request.urlopen(url, timeout=5) as answer:
        up = re.findall(r"^dafh_part_up\{(.*)\} 1\.0$", answer.read().decode(), re.MULTILINE)
    found = {tuple(sorted(re.findall(r'(part|process)="(\w+)"', labels))) for labels in up}
    parts = ("decoders", "milvus", "triton")
    assert found == {
        (("part", part), ("process", str(number))) for part in parts for number in range(PROCESSES)
    }


def test_it_is_back_after_a_kill(cluster: Cluster, pod: Played) -> None:
    before = int(pod.state("State.Pid"))
    os.kill(before, signal.SIGKILL)
    until(lambda: pod.state("State.Pid") not in {"0", str(before)}, pod)
    until(lambda: cluster.get("/readyz") == 200, pod)
    assert pod.state("HostConfig.RestartPolicy.Name") == "always"
    with cluster.client() as client:
        assert finds(client, PHANTOMS[0])


def test_it_finishes_what_is_in_hand_takes_no_more_and_ends_well(
    cluster: Cluster, pod: Played
) -> None:
    request = question({"top_k": 3, "include_same_patient": True}, dicom=PHANTOMS[1].data)
    parts = list(upload(request))
    rest: queue.SimpleQueue[retrieval_service_pb2.RetrieveUploadRequest | None] = (
        queue.SimpleQueue()
    )
    rest.put(parts[0])
    patience = cluster.manifests.workload("gateway").pod["terminationGracePeriodSeconds"]
    with cluster.client(retry=False) as client, cluster.client(retry=False) as other:
        in_hand = client.retrieval.RetrieveUpload.future(iter(rest.get, None), timeout=60)
        # It is in hand: the next call, on the same connection, was answered.
        assert finds(client, PHANTOMS[0])
        with pod.stopping(patience):
            until(lambda: cluster.get("/readyz") == 503, pod)
            assert finds(other, PHANTOMS[0]), "until the drain is over it still answers"
            until(lambda: refused(other), pod, 30)
            for part in parts[1:]:
                rest.put(part)
            rest.put(None)
            answer = in_hand.result(30).response
    assert answer.hits[0].case.sop_instance_uid == instance(PHANTOMS[1])
    assert pod.state("State.Status") == "exited"
    assert pod.state("State.ExitCode") == "0"


def refused(client: Client) -> bool:
    """Say whether a call is refused as one that another replica should have."""
    try:
        finds(client, PHANTOMS[0])
    except Unavailable as error:
        return error.reason is Reason.GATEWAY_UNAVAILABLE
    return False
