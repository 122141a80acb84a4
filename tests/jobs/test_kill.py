"""`kill -9` at random moments of a job: the archive ends as that of a job nobody disturbed."""

from __future__ import annotations

import csv
import hashlib
import json
import random
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dafh.imaging.phantom import phantoms
from tests.imaging.canaries import Canaries, planted
from tests.index.servers import Server
from tests.jobs.conftest import REAL
from tests.jobs.jobs import Job, end, until
from tests.jobs.reading import dicomdir

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


def survive(job: Job, server: Server, instances: int, kills: int) -> str:
    """Index undisturbed; then again, killed again and again; hold the one against the other.

    Returns
    -------
    str
        What was found, for people.
    """
    heard = []
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
        until(
            lambda goal=goal, process=process: (
                process.poll() is not None or job.written_down() >= goal
            )
        )
        if process.poll() is None:
            wait_a_little(process, moments.uniform(0, 1.5))
        if process.poll() is None:
            code, said = end(process, signal.SIGKILL)
            assert code == -signal.SIGKILL
            done += 1
        else:
            _, said = process.communicate()
        heard.append(said)
    assert done >= max(2, kills // 2), "most runs were to be killed on the way"
    report = job.folder / "report"
    facts = job.finish("--report", str(report))
    assert facts["complete"]
    assert facts["known"] > 0, "the journal was of no use"
    cases = job.cases()
    lost, added = Counter(undisturbed) - Counter(cases), Counter(cases) - Counter(undisturbed)
    found = (
        f"{done} kills over {len(undisturbed)} cases: {lost.total()} lost, {added.total()} too many"
    )
    assert cases == undisturbed, found
    check_report(report, Path(job.sources[0]))
    check_privacy([job.folder / "jobs", report, server.folder], heard)
    return found


def wait_a_little(process: subprocess.Popen[str], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def check_report(report: Path, source: Path) -> None:
    """See that each file is in the report once, and each that is corrupt with its reason."""
    rows = pq.read_table(report / "outcomes.parquet").to_pylist()
    files = [hashlib.sha256(file.read_bytes()).hexdigest() for file in source.rglob("*.dcm")]
    assert sorted(row["sha256"] for row in rows if row["sha256"] in set(files)) == sorted(files)
    if REAL.is_dir():
        reasons = {row["sha256"]: row["reason"] for row in rows}
        with (REAL / "manifest.csv").open() as table:
            real = {row["file"]: row["sha256"] for row in csv.DictReader(table)}
        assert all(sha256 in reasons for sha256 in real.values())
        corrupt = {name for name in real if name.startswith("derived_")}
        assert {name: reasons[real[name]] for name in corrupt} == CORRUPT


def check_privacy(folders: list[Path], heard: list[str]) -> None:
    """See that no name of the source is in what jobs and servers said and kept."""
    assert not Canaries.sings("".join(heard))
    for file in (file for folder in folders for file in folder.rglob("*")):
        if file.is_file():
            assert b"CNRY" not in file.read_bytes(), file
    for table in (file for folder in folders for file in folder.glob("*.parquet")):
        assert not Canaries.sings(json.dumps(pq.read_table(table).to_pylist()))


@pytest.fixture
def sources(tmp_path: Path) -> Callable[[int], list[Path]]:
    """Return what makes phantoms, with the real files where they are.

    Names of patients are in the path, in a file, in members of archives and in a DICOMDIR.
    """

    def make(instances: int) -> list[Path]:
        names = Canaries()
        folder = tmp_path / names.next().decode() / "phantoms"
        folder.mkdir(parents=True)
        for one in phantoms(instances, 5):
            (folder / one.file_name).write_bytes(one.data)
        named = names.next().decode()
        (folder / named).write_bytes(planted(names))
        (folder / "DICOMDIR").write_bytes(dicomdir([[named]]))
        with zipfile.ZipFile(folder / f"{names.next().decode()}.zip", "w") as archive:
            archive.writestr(f"{names.next().decode()}/text", names.next() * 9)
        with tarfile.open(folder / f"{names.next().decode()}.tar.gz", "w:gz") as tape:
            tape.add(folder / named, names.next().decode())
        return [folder, *([REAL] if REAL.is_dir() else [])]

    return make


@pytest.mark.timeout(900)
def test_kills_in_the_middle_of_a_job_lose_and_double_nothing(
    server: Server, new_job: NewJob, sources: Callable[[int], list[Path]]
) -> None:
    made = sources(FEW_INSTANCES)
    survive(new_job(server, *made), server, FEW_INSTANCES, FEW)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_kills_in_the_middle_of_a_job_lose_and_double_nothing(
    server: Server,
    new_job: NewJob,
    sources: Callable[[int], list[Path]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = sources(MANY_INSTANCES)
    found = survive(new_job(server, *made), server, MANY_INSTANCES, MANY)
    with capsys.disabled():
        sys.stdout.write(f"\n{type(server).__name__}: {found}\n")
