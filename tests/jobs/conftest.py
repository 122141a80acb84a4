"""Servers for jobs: the stack's Triton, and a Milvus of each kind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from dafh.imaging.phantom import Phantom, phantoms
from dafh.stack import Stack
from tests.index.conftest import lite as lite
from tests.index.conftest import own_server as own_server
from tests.index.conftest import server as server
from tests.index.conftest import standalone as standalone
from tests.index.servers import Server
from tests.jobs.jobs import Job

NewJob = Callable[..., Job]

#: Real files, where the checkout has them.
REAL = Path(__file__).resolve().parents[3] / "shared" / "dicom"


@pytest.fixture
def new_job(request: pytest.FixtureRequest, stack: Stack, tmp_path: Path) -> NewJob:
    """Return what makes a job of an archive that only this test uses."""

    def make(server: Server, *sources: Path, name: str = "", **options: object) -> Job:
        made = f"{request.node.name} {name}".encode()
        archive = f"j{hashlib.sha256(made).hexdigest()[:12]}"
        return Job(
            server.endpoint,
            stack.triton.address,
            tmp_path,
            tuple(map(str, sources)),
            archive,
            **options,  # type: ignore[arg-type]  # fields of a Job
        )

    return make


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sixty phantoms, and others."""
    folder = tmp_path_factory.mktemp("few")
    for one in phantoms(60, 11):
        (folder / one.file_name).write_bytes(one.data)
    (folder / "text").write_text("no image " * 40)
    (folder / "empty").touch()
    return folder


@pytest.fixture(scope="session")
def made() -> list[Phantom]:
    return list(phantoms(4, 7))


@pytest.fixture
def folder(made: list[Phantom], tmp_path: Path) -> Path:
    """A folder as scanners leave them: deep, without suffixes, with an empty one."""
    root = tmp_path / "images"
    places = ("b/IM1", "b/deep/er/IM2", "a", "b.dcm")
    for place, one in zip(places, made, strict=True):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(one.data)
    (root / "empty").mkdir()
    return root
