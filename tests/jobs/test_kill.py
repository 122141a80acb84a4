"""`kill -9` at random moments of a job: the archive ends as that of a job nobody disturbed."""

from __future__ import annotations

import csv
import hashlib
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dafh.imaging.phantom import phantoms
from tests.index.servers import Server
from tests.jobs.conftest import REAL
from tests.jobs.jobs import Job, end, until

pytestmark = pytest.mark.stack

NewJob = Callable[..., Job]

#: Kills and phantoms of `make test`, and of `make test-long`.
FEW, FEW_INSTANCES = 3, 600
MANY, MANY_INSTANCES = 20, 5_000

#: Corrupt files of the real ones, and what each is left out for; four can be read all the same.
CORRUPT = {
    "derived_bitflips_j2k.dcm": "",
    "derived_huge_dims.dcm": "LIMIT_EXCEEDED",
    "derived_no_photometric.dcm": "PHOTOMETRIC_UNSUPPORTED",
    "derived_no_preamble.dcm": "",
    "derived_preamble_only.dcm": "NO_PIXELS",
    "derived_trailing_garbage.dcm": "",
    "derived_trunc_half.dcm": "DICOM_MALFORMED",
    "derived_trunc_header.dcm": "DICOM_MALFORMED",
    "derived_trunc_jpeg.dcm": "PIXELS_UNDECODABLE",
    "derived_trunc_rle.dcm": "PIXELS_UNDECODABLE",
    "derived_wrong_tsuid.dcm": "",
    "derived_zero_bytes.dcm": "EMPTY_INPUT",
}


def survive(job: Job, instances: int, kills: int, source: Path) -> None:
    """Index undisturbed; then again, killed again and again; hold the one against the other."""
    job.finish("--no-journal")
    undisturbed = job.cases()
    assert len(undisturbed) >= instances
    job.wipe()
    moments = random.Random(kills)  # noqa: S311 - no secrets
    done = 0
    for kill in range(kills):
        process = job.start()
        # The later kills come later in the job, so that all of it is hit.
        goal = min(instances * kill // kills, instances - 1)
        until(lambda goal=goal, process=process: job.count() >= goal or process.poll() is not None)
        if process.poll() is None:
            wait_a_little(process, moments.uniform(0, 1.5))
        if process.poll() is None:
            code, _ = end(process, signal.SIGKILL)
            assert code == -signal.SIGKILL
            done += 1
        else:
            process.communicate()
    assert done >= max(2, kills // 2), "most runs were to be killed on the way"
    report = job.folder / "report"
    facts = job.finish("--report", str(report))
    assert facts["complete"]
    assert facts["known"] > 0, "the journal was of no use"
    assert job.cases() == undisturbed
    check_report(report, source)


def wait_a_little(process: subprocess.Popen[str], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def check_report(report: Path, source: Path) -> None:
    """See that each file is in the report once, and each that is corrupt with its reason."""
    rows = pq.read_table(report / "outcomes.parquet").to_pylist()
    files = [
        hashlib.sha256(file.read_bytes()).hexdigest()
        for file in source.rglob("*")
        if file.is_file()
    ]
    assert sorted(row["sha256"] for row in rows if row["sha256"] in set(files)) == sorted(files)
    if REAL.is_dir():
        reasons = {row["sha256"]: row["reason"] for row in rows}
        with (REAL / "manifest.csv").open() as table:
            real = {row["file"]: row["sha256"] for row in csv.DictReader(table)}
        assert all(sha256 in reasons for sha256 in real.values())
        corrupt = {name for name in real if name.startswith("derived_")}
        assert {name: reasons[real[name]] for name in corrupt} == CORRUPT


@pytest.fixture
def sources(tmp_path: Path) -> Callable[[int], list[Path]]:
    """Return what makes phantoms, with the real files where they are."""

    def make(instances: int) -> list[Path]:
        folder = tmp_path / "phantoms"
        folder.mkdir()
        for one in phantoms(instances, 5):
            (folder / one.file_name).write_bytes(one.data)
        return [folder, *([REAL] if REAL.is_dir() else [])]

    return make


@pytest.mark.timeout(900)
def test_kills_in_the_middle_of_a_job_lose_and_double_nothing(
    server: Server, new_job: NewJob, sources: Callable[[int], list[Path]]
) -> None:
    made = sources(FEW_INSTANCES)
    survive(new_job(server, *made), FEW_INSTANCES, FEW, made[0])


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_kills_in_the_middle_of_a_job_lose_and_double_nothing(
    server: Server, new_job: NewJob, sources: Callable[[int], list[Path]]
) -> None:
    made = sources(MANY_INSTANCES)
    survive(new_job(server, *made), MANY_INSTANCES, MANY, made[0])
