"""`dafh reindex` codes an archive by another model; what has no pixels is told and blocks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dafh.cli import build
from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.index.archives import Archives
from dafh.index.case import Coding
from dafh.index.connection import Connection
from dafh.index.fill import Filled, fill
from dafh.index.milvus import MilvusIndex
from dafh_jobs import reindex
from tests.chaos.triton import SECOND, Triton
from tests.index.models import soon
from tests.index.servers import LiteServer
from tests.jobs.jobs import DAFH, Job, end, until

pytestmark = pytest.mark.stack

NewJob = Callable[..., Job]


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """Return a server of both versions."""
    with Triton(tmp_path_factory.mktemp("triton")) as server:
        yield server


@pytest.fixture
def job(new_job: NewJob, lite: LiteServer, triton: Triton, few: Path, tmp_path: Path) -> Job:
    """An archive of sixty phantoms, coded by version 1."""
    source = shutil.copytree(few, tmp_path / "source")
    first = {"DAFH_MODEL_VERSION": "1"}
    made = replace(new_job(lite, source), triton=triton.address, settings=first)
    made.finish()
    return made


def started(job: Job, *options: str) -> subprocess.Popen[str]:
    words = ["reindex", job.archive, "--model", "2", "--from", *job.sources, *options, "--json"]
    return subprocess.Popen(
        [DAFH, *words, "--data-dir", str(job.folder)],
        env=job.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def reindexed(job: Job, *options: str, code: int = 0) -> dict[str, Any]:
    process = started(job, *options)
    out, errors = process.communicate(timeout=240)
    assert process.returncode == code, errors
    facts: dict[str, Any] = json.loads(out) if out else {"said": errors}
    return facts


def codes(job: Job, coding: Coding) -> dict[str, str]:
    connection = Connection(job.endpoint, Deadline.after(60))
    found: dict[str, str] = {
        case.id: case.code.hex() for case in MilvusIndex(connection, coding).scan(soon())
    }
    connection.close()
    return found


def codings(job: Job) -> list[Coding]:
    connection = Connection(job.endpoint, Deadline.after(60))
    found = [one.coding for one in Archives(connection, "default").get(job.archive, soon()).codings]
    connection.close()
    return found


def turned(code: str) -> str:
    """Return a code with every bit turned, which is what the second model makes of it."""
    return HashCode(bytes(255 - byte for byte in bytes.fromhex(code))).hex()


def test_an_archive_is_coded_anew_switched_and_back(job: Job) -> None:
    (live,) = codings(job)
    facts = reindexed(job)
    assert (facts["stored"], facts["missing"], facts["live"]) == (60, 0, live.key)
    before, other = codings(job)
    assert (before, other.model_hash) == (live, SECOND)
    first, second = codes(job, live), codes(job, other)
    assert second == {key: turned(code) for key, code in first.items()}
    again = reindexed(job, "--switch")
    assert (again["stored"], again["known"], again["live"]) == (0, 62, other.key)
    assert codings(job)[0] == other
    back = ["archive", "switch", job.archive, live.key]
    subprocess.run([DAFH, *back], env=job.environment, check=True, capture_output=True)
    assert codings(job)[0] == live


def test_cases_without_pixels_are_told_and_block_the_switch(job: Job) -> None:
    (live,) = codings(job)
    gone = sorted(Path(job.sources[0]).glob("*.dcm"))[:3]
    for file in gone:
        file.unlink()
    refused = reindexed(job, "--switch", code=5)
    assert "3" in refused["said"]
    assert codings(job)[0] == live
    facts = reindexed(job, "--switch", "--allow-missing")
    assert facts["missing"] == len(facts["first_missing"]) == 3
    # Also who is refused is told which.
    assert set(facts["first_missing"]) <= set(refused["said"].splitlines())
    assert codings(job)[0].model_hash == SECOND
    assert len(codes(job, codings(job)[0])) == 57


def test_what_was_erased_does_not_come_back_and_what_is_new_is_not_added(job: Job) -> None:
    (live,) = codings(job)
    erased = sorted(codes(job, live))[:5]
    connection = Connection(job.endpoint, Deadline.after(60))
    MilvusIndex(connection, live).delete(erased, soon())  # type: ignore[arg-type]  # they are keys
    connection.close()
    facts = reindexed(job)
    assert (facts["stored"], facts["missing"]) == (55, 0)
    assert facts["outcomes"] == {"added": 55, "unchanged": 5}
    _, other = codings(job)
    assert codes(job, other).keys() == codes(job, live).keys()


def test_a_reindexing_that_is_killed_goes_on(job: Job) -> None:
    process = started(job)
    until(lambda: process.poll() is not None or list((job.folder / "jobs").glob("*.codes")))
    end(process, signal.SIGKILL)
    facts = reindexed(job)
    assert facts["missing"] == 0
    live, other = codings(job)
    assert codes(job, other) == {key: turned(code) for key, code in codes(job, live).items()}


def test_told_to_stop_while_it_fills_a_reindexing_does_not_switch(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    (live,) = codings(job)

    def told(*words: Any) -> Filled:  # noqa: ANN401 - as `fill`
        os.kill(os.getpid(), signal.SIGTERM)
        return fill(*words)

    monkeypatch.setattr(reindex, "fill", told)
    for name, value in job.environment.items():
        monkeypatch.setenv(name, value)
    words = ["reindex", job.archive, "--model", "2", "--from", *job.sources, "--switch", "--json"]
    words += ["--data-dir", str(job.folder)]
    answer = CliRunner().invoke(build(words), words, catch_exceptions=False)
    assert answer.exit_code == 75, answer.output
    assert not json.loads(answer.stdout)["complete"]
    before, other = codings(job)
    assert (before, codes(job, other)) == (live, {})
    assert reindexed(job, "--switch")["live"] == other.key
