"""`dafh index` leaves one case per image, whatever comes twice, changes, moves or contradicts."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import signal
import socket
import stat
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydicom import dcmread, dcmwrite
from typer.testing import CliRunner

from dafh.cli import build
from dafh.errors import InvalidInput
from dafh_jobs.journal import Journal
from tests.index.models import soon
from tests.index.servers import LiteServer
from tests.jobs.jobs import DAFH, Job, end, until

pytestmark = pytest.mark.stack

NewJob = Callable[..., Job]


@pytest.fixture
def source(few: Path, tmp_path: Path) -> Path:
    """A copy that the test may change."""
    return Path(shutil.copytree(few, tmp_path / "source"))


def changed(file: Path, **elements: str) -> bytes:
    """Return a file with other elements."""
    data_set = dcmread(file)
    for keyword, value in elements.items():
        setattr(data_set, keyword, value)
    stream = io.BytesIO()
    dcmwrite(stream, data_set, enforce_file_format=True)
    return stream.getvalue()


def test_a_second_run_knows_every_file_and_changes_nothing(
    new_job: NewJob, lite: LiteServer, source: Path
) -> None:
    job = new_job(lite, source)
    first = job.finish()
    assert first["outcomes"] == {"added": 60}
    assert first["skipped"] == {"EMPTY_INPUT": 1, "NOT_AN_IMAGE": 1}
    assert (first["files"], first["complete"], first["known"]) == (62, True, 0)
    before = job.cases()
    second = job.finish()
    assert second["known"] == 62
    # What the first run did took the second no time.
    assert (second["images_per_second"], second["files_per_second"]) == (0, 0)
    assert {name: second[name] for name in ("outcomes", "skipped", "files")} == {
        name: first[name] for name in ("outcomes", "skipped", "files")
    }
    forgotten = job.finish("--no-journal")
    assert (forgotten["outcomes"], forgotten["known"]) == ({"unchanged": 60}, 0)
    assert job.cases() == before


def test_what_is_moved_copied_or_changed_is_recognised(
    new_job: NewJob, lite: LiteServer, source: Path
) -> None:
    job = new_job(lite, source)
    job.finish()
    before = job.cases()
    files = sorted(source.glob("*.dcm"))
    (source / "elsewhere").mkdir()
    files[0].rename(source / "elsewhere" / "moved")
    shutil.copy(files[1], source / "copy")
    files[2].write_bytes(files[3].read_bytes())
    facts = job.finish()
    assert facts["noticed"] == {"changed": 1, "copy": 2, "moved": 1}
    # A file that is gone takes no case with it.
    assert job.cases() == before


def test_an_archive_that_was_made_again_is_filled_again(
    new_job: NewJob, lite: LiteServer, source: Path
) -> None:
    job = new_job(lite, source)
    job.finish()
    before = job.cases()
    job.wipe()
    assert job.finish()["known"] == 0
    assert job.cases() == before


def test_conflicts_end_alike_in_every_order_and_are_reported(
    new_job: NewJob, lite: LiteServer, source: Path, tmp_path: Path
) -> None:
    one, other = sorted(source.glob("*ct.dcm"))[:2]
    uid = dcmread(one).SOPInstanceUID
    conflicts = tmp_path / "conflicts"
    conflicts.mkdir()
    (conflicts / "metadata").write_bytes(changed(one, BodyPartExamined="KNEE"))
    (conflicts / "pixels").write_bytes(changed(other, SOPInstanceUID=uid))
    orders = [(source, conflicts), (conflicts, source)]
    ends = []
    for order in orders:
        job = new_job(lite, *order)
        facts = job.finish()
        assert (
            facts["outcomes"]["pixel_conflict"] + facts["outcomes"].get("metadata_conflict", 0) == 2
        )
        assert facts["file_outcomes"]["conflict"] == 2
        ends.append(job.cases())
        job.wipe()
    assert ends[0] == ends[1]


def test_labels_of_a_table_are_stored_and_new_ones_noticed(
    new_job: NewJob, lite: LiteServer, source: Path
) -> None:
    file = min(source.glob("*.dcm"))
    table = source / "labels.csv"
    job = new_job(lite, source, options=("--labels", str(table)))
    for label in ("b", "a"):
        table.write_text(f"file,label,cancer_type\n{file.name},{label},x\ngone,{label},x\n")
        facts = job.finish()
    assert facts["labels_of_no_file"] == 1
    # The same pixels with another label: one of the two stands, and the report says so.
    assert facts["outcomes"]["metadata_conflict"] == 1
    assert {case[-2] for case in job.cases()} <= {"", "a", "b"}
    assert len({case[-2] for case in job.cases()}) == 2


def test_archives_in_a_folder_give_what_is_in_them(
    new_job: NewJob, lite: LiteServer, source: Path, tmp_path: Path
) -> None:
    plain = new_job(lite, source, name="plain")
    plain.finish()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in source.iterdir():
            archive.write(file, file.name)
    zipped = new_job(lite, tmp_path / "a.zip", name="zipped")
    zipped.finish()
    assert zipped.cases() == plain.cases()


def test_the_report_names_files_by_their_bytes(
    new_job: NewJob, lite: LiteServer, source: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report"
    facts = new_job(lite, source, options=("--report", str(report))).finish()
    rows = pq.read_table(report / "outcomes.parquet").to_pylist()
    files = {hashlib.sha256(file.read_bytes()).hexdigest() for file in source.iterdir()}
    assert {row["sha256"] for row in rows} == files
    assert [row["sha256"] for row in rows] == sorted(files)
    reasons = {row["sha256"]: row["reason"] for row in rows if row["outcome"] == "refused"}
    assert reasons == {
        hashlib.sha256(b"").hexdigest(): "EMPTY_INPUT",
        hashlib.sha256((source / "text").read_bytes()).hexdigest(): "NOT_AN_IMAGE",
    }
    assert sum(one["images"] for one in facts["modalities"].values()) == 60
    page = (report / "report.html").read_text()
    assert page.count("<svg") == 4
    assert str(source) not in page
    for file in report.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_told_to_stop_it_finishes_its_batch_and_says_resume(
    new_job: NewJob, lite: LiteServer, source: Path
) -> None:
    # One decoder: slow enough to be stopped on the way.
    job = new_job(lite, source, settings={"DAFH_DECODE_WORKERS": "1"})
    process = job.start()
    until(lambda: process.poll() is not None or list((job.folder / "jobs").glob("*.sqlite")))
    code, said = end(process, signal.SIGTERM)
    assert code == 75, said
    assert "Traceback" not in said
    facts = job.finish()
    assert facts["complete"]
    assert len(job.cases()) == 60


def test_two_jobs_do_not_share_a_journal(
    new_job: NewJob, lite: LiteServer, source: Path, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal", b"k" * 32, "another job")
    process = new_job(lite, source).start("--journal", str(tmp_path / "journal"))
    _, said = process.communicate(timeout=120)
    journal.close()
    assert process.returncode == 2
    assert "Another job uses the journal" in said


def test_three_shards_in_parallel_are_one_run(
    new_job: NewJob, lite: LiteServer, source: Path, tmp_path: Path
) -> None:
    shutil.copy(min(source.glob("*.dcm")), source / "copy")
    (source / "gone").symlink_to("nothing")
    whole = new_job(lite, source, name="whole", options=("--report", str(tmp_path / "whole")))
    expected = whole.finish(code=1)
    job = new_job(lite, source, name="parts")
    settings = {"JOB_COMPLETION_INDEX": "2", "DAFH_SHARDS": "3"}
    parts = [
        job.start("--shard", "0/3", "--report", str(tmp_path / "0")),
        job.start("--shard", "1/3", "--report", str(tmp_path / "1")),
        new_job(lite, source, name="parts", settings=settings).start(
            "--report", str(tmp_path / "2")
        ),
    ]
    for part in parts:
        _, said = part.communicate(timeout=240)
        assert part.returncode == 1, said
    assert job.cases() == whole.cases()
    merged = merge(tmp_path, 3)
    for name in ("files", "bytes", "skipped", "noticed"):
        assert merged[name] == expected[name], name
    assert merged["outcomes"]["added"] == expected["outcomes"]["added"] == 60
    rows = [pq.read_table(tmp_path / name / "outcomes.parquet") for name in ("merged", "whole")]
    assert rows[0]["sha256"] == rows[1]["sha256"]
    again = job.finish("--shard", "1/3", code=1)
    assert again["known"] == 63


def test_what_was_erased_is_not_said_to_be_in_the_archive(
    new_job: NewJob, lite: LiteServer, source: Path
) -> None:
    job = new_job(lite, source)
    assert job.finish()["cases"] == 60
    with job.index() as index:
        erased = next(index.scan(soon())).id
    words = ["archive", "erase", job.archive, "--case", erased, "--yes"]
    subprocess.run([DAFH, *words], env=job.environment, check=True, capture_output=True)
    again = job.finish()
    # The journal remembers the file, and does not bring the case back.
    assert (again["indexed"], again["known"], again["cases"]) == (60, 62, 59)
    forgotten = job.finish("--no-journal")
    assert (forgotten["outcomes"], forgotten["cases"]) == ({"added": 1, "unchanged": 59}, 60)


def test_killed_without_a_journal_a_job_leaves_no_file(
    new_job: NewJob, lite: LiteServer, source: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nslices = "representative"\n')
    job = new_job(lite, source, settings={"DAFH_DECODE_WORKERS": "1", "TMPDIR": str(scratch)})
    process = job.start("--no-journal", "--selection", str(rules))
    until(lambda: process.poll() is not None or job.count() > 0)
    end(process, signal.SIGKILL)
    assert list(scratch.iterdir()) == []
    assert list(job.folder.rglob("*.sqlite")) == []


@pytest.mark.parametrize("words", [["index"], ["reindex", "a", "--model", "2", "--from"]])
def test_told_to_stop_before_it_has_begun_a_job_says_resume(
    new_job: NewJob, lite: LiteServer, few: Path, words: list[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        job = new_job(lite, few)
        where = {"DAFH_MILVUS_URI": f"http://127.0.0.1:{mute.getsockname()[1]}"}
        process = subprocess.Popen(
            [DAFH, *words, str(few)],
            env=job.environment | where,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # It asks, and nobody answers.
        mute.settimeout(60)
        connection, _ = mute.accept()
        began = time.monotonic()
        with connection:
            told, said = end(process, signal.SIGTERM)
    assert told == 75, said
    assert "Traceback" not in said
    assert time.monotonic() - began < 20


def test_frames_beside_a_selection_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text("[[rule]]\n")
    rules = ["--selection", str(tmp_path / "rules.toml")]
    words = ["index", str(tmp_path), "--dry-run", *rules]
    assert CliRunner().invoke(build(words), words).exit_code == 0
    words += ["--frames", "representative"]
    with pytest.raises(InvalidInput, match="--frames"):
        CliRunner().invoke(build(words), words, catch_exceptions=False)


def merge(folder: Path, count: int) -> dict[str, Any]:
    parts = [str(folder / str(number)) for number in range(count)]
    words = ["merge-reports", *parts, "--out", str(folder / "merged"), "--json"]
    answer = CliRunner().invoke(build(words), words, catch_exceptions=False)
    facts: dict[str, Any] = json.loads(answer.stdout)
    return facts
