"""The TypeScript example, built by npm and run against the real gateway."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dafh.client import Client
from dafh.imaging.phantom import phantoms
from dafh.settings import CHECKOUT
from dafh.stack import Stack
from tests.client.test_client import PUSHBACK_S, Refusing
from tests.gateway.filled import fill
from tests.imaging.instances import write_instance

pytestmark = pytest.mark.stack
EXAMPLE = CHECKOUT / "examples" / "typescript"
INSTALL_S = 120


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("npm") / "typescript"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules", "dist"))
    installing = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    installed = subprocess.run(
        installing, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False
    )
    if installed.returncode and any(
        word in installed.stderr for word in ("ENOTFOUND", "ECONNREFUSED", "ETIMEDOUT", "EAI_AGAIN")
    ):
        pytest.skip("npm reaches no registry")
    assert installed.returncode == 0, installed.stderr
    subprocess.run([npm, "run", "build"], cwd=folder, check=True, timeout=INSTALL_S)
    return folder


def run(built: Path, address: str, data: bytes, archive: str) -> subprocess.CompletedProcess[str]:
    (built / "query.dcm").write_bytes(data)
    command = ["node", "dist/retrieve.js", address, str(CHECKOUT / "protos"), "query.dcm", archive]
    return subprocess.run(
        command, cwd=built, capture_output=True, text=True, timeout=60, check=False
    )


def test_it_gets_the_pages_that_the_python_client_gets(built: Path, stack: Stack) -> None:
    small = next(iter(phantoms(1, 78))).data
    large = write_instance(np.arange(3000 * 3000, dtype=np.uint16).reshape(3000, 3000))
    with Client(stack.gateway.address, timeout=60) as client:
        client.create_archive("typescript")
        fill(client, "typescript", 30, 77)
        for data in (small, large):
            done = run(built, stack.gateway.address, data, "archives/typescript")
            assert done.returncode == 0, done.stderr
            pages = json.loads(done.stdout)
            assert [len(page) for page in pages] == [4, 2]
            hits = client.retrieve(archive="archives/typescript", dicom=data, top_k=6).hits
            expected = [{"name": hit.case.name, "distance": hit.distance} for hit in hits]
            assert [*pages[0], *pages[1]] == expected


def test_it_sends_an_image_again_when_the_gateway_said(built: Path) -> None:
    with Refusing("dafh.v1.RetrievalService", "Retrieve", 1, pushback=PUSHBACK_S) as server:
        done = run(built, server.address, bytes(2 << 20), "archives/typescript")
    assert (done.returncode, json.loads(done.stdout)) == (0, [[]]), done.stderr
    first, second = server.calls
    assert second - first >= PUSHBACK_S


def test_it_sees_the_status_of_an_error(built: Path, stack: Stack) -> None:
    done = run(built, stack.gateway.address, b"nonsense", "archives/typescript")
    assert done.returncode == 1
    told = json.loads(done.stderr)
    assert told["code"] == 3
    assert told["details"]
