"""Servers go away, disks fill and shares vanish in mid-job: it waits or stops, and resumes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dafh.imaging.phantom import phantoms
from tests.chaos.triton import Triton
from tests.index.servers import Server
from tests.jobs.jobs import DAFH, Job, end, until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

NewJob = Callable[..., Job]
INSTANCES = 300
#: More than a job holds at once: 128 images in flight, 128 in a batch, 64 that wait for one. Of so
#: many some are not read yet when the first are written down.
MANY = 900

#: Runs what follows with mounts that nobody else sees.
OWN_MOUNTS = ("unshare", "--user", "--map-root-user", "--mount")
#: Runs a job on a disk that is too small, prints its exit code, makes room, runs it again. The
#: journal of all files has 136 KiB, whatever the batches; that of the first batch is on the disk.
SMALL_DISK = """
disk=$1; shift
mount -t tmpfs -o size=120k none "$disk"
"$@"; echo $?
mount -o remount,size=64m "$disk"
exec "$@"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough phantoms for a job to be on its way when something happens."""
    folder = tmp_path_factory.mktemp("some")
    for one in phantoms(INSTANCES, 21):
        (folder / one.file_name).write_bytes(one.data)
    return folder


@pytest.fixture
def source(made: Path, tmp_path: Path) -> Path:
    """A copy that the test may change."""
    return Path(shutil.copytree(made, tmp_path / "source"))


@pytest.fixture
def triton(tmp_path: Path) -> Iterator[Triton]:
    (tmp_path / "triton").mkdir()
    with Triton(tmp_path / "triton") as server:
        yield server


def on_its_way(job: Job, process: subprocess.Popen[str]) -> None:
    """Wait until a job has stored something and written it down."""
    until(lambda: process.poll() is not None or job.written_down() > 0)
    assert process.poll() is None, process.communicate()


def outlives(job: Job, server: Server | Triton) -> None:
    """See a job wait while a server is away, say so once, and end as if nothing had been."""
    with job.start() as process:
        on_its_way(job, process)
        server.kill()
        assert process.stdout is not None
        assert process.stderr is not None
        said = ""
        while "waiting: " not in said and (line := process.stderr.readline()):
            said += line
        assert process.poll() is None, said
        server.start()
        said += process.stderr.read()
        facts = process.stdout.read()
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert said.count("waiting: ") == said.count("going on") == 1
    assert json.loads(facts)["complete"]
    assert len(job.cases()) == INSTANCES


def test_a_job_waits_for_a_milvus_that_is_started_again(
    own_server: Server, new_job: NewJob, source: Path
) -> None:
    outlives(new_job(own_server, source), own_server)


def test_a_job_waits_for_a_triton_that_is_started_again(
    lite: Server, new_job: NewJob, triton: Triton, source: Path
) -> None:
    outlives(replace(new_job(lite, source), triton=triton.address), triton)


def test_a_job_whose_server_stays_away_gives_up_and_resumes(
    lite: Server, new_job: NewJob, triton: Triton, source: Path
) -> None:
    job = replace(new_job(lite, source), triton=triton.address)
    hasty = replace(job, settings={"DAFH_SERVER_PATIENCE": "2"})
    process = hasty.start()
    on_its_way(job, process)
    triton.kill()
    out, said = process.communicate(timeout=120)
    assert (process.returncode, out) == (4, ""), said
    assert said.splitlines()[-1].startswith("dafh: Triton is not reachable")
    triton.start()
    facts = job.finish()
    assert facts["known"] > 0
    assert len(job.cases()) == INSTANCES


def test_told_to_stop_while_it_waits_a_job_stops(
    lite: Server, new_job: NewJob, triton: Triton, source: Path
) -> None:
    job = replace(new_job(lite, source), triton=triton.address)
    process = job.start()
    on_its_way(job, process)
    triton.kill()
    time.sleep(2)
    began = time.monotonic()
    code, said = end(process, signal.SIGTERM)
    assert code == 75, said
    assert time.monotonic() - began < 30


def test_told_to_stop_while_its_source_is_silent_a_job_stops(lite: Server, new_job: NewJob) -> None:
    asked, gate = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()

        def do_GET(self) -> None:
            asked.set()
            gate.wait(60)

        def log_message(self, *words: object) -> None:
            del words

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as store:
        threading.Thread(target=store.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{store.server_port}/a.zip"
        process = replace(new_job(lite), sources=(address,)).start()
        assert asked.wait(60), process.communicate()
        began = time.monotonic()
        code, said = end(process, signal.SIGTERM)
        gate.set()
        store.shutdown()
    assert code == 75, said
    assert time.monotonic() - began < 30


def test_a_file_that_vanishes_is_reported_and_a_source_that_does_stops_the_job(
    lite: Server, new_job: NewJob, source: Path
) -> None:
    for one in phantoms(MANY - INSTANCES, 22):
        (source / f"more-{one.file_name}").write_bytes(one.data)
    job = new_job(lite, source, settings={"DAFH_DECODE_WORKERS": "1"})
    last = max(source.glob("*.dcm"))
    away = source.with_name("away")
    (source / "gone").symlink_to(last.with_name("nothing"))
    process = job.start()
    on_its_way(job, process)
    source.rename(away)
    out, said = process.communicate(timeout=120)
    assert (process.returncode, out) == (4, ""), said
    assert "There is nothing at source 1 of 1. It was there when the job began." in said
    away.rename(source)
    facts = job.finish(code=1)
    assert facts["known"] > 0
    assert facts["skipped"] == {"SOURCE_UNREADABLE": 1}
    (source / "gone").unlink()
    assert job.finish()["skipped"] == {}
    assert len(job.cases()) == MANY


def test_a_full_disk_stops_the_job_with_a_sentence_and_it_resumes(
    lite: Server, new_job: NewJob, source: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run([*OWN_MOUNTS, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount")
    job = new_job(lite, source)
    words = [DAFH, "index", str(source), "--archive", job.archive, "--json"]
    words += ["--data-dir", str(tmp_path), "--journal", str(disk / "journal")]
    answer = subprocess.run(
        [*OWN_MOUNTS, "sh", "-c", SMALL_DISK, "sh", str(disk), *words],
        env=job.environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    code, facts = answer.stdout.splitlines()
    assert code == "4", answer.stderr
    # But for how far it is, every ten seconds.
    said = [line for line in answer.stderr.splitlines() if not line.startswith("indexing: ")]
    assert said == [
        "dafh: The disk of the journal is full. Make room, then run the same command again: it "
        "goes on where it was."
    ]
    assert json.loads(facts)["complete"]
    assert 0 < json.loads(facts)["known"] < INSTANCES
    assert len(job.cases()) == INSTANCES
