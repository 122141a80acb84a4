"""Names in files, folders and file names are in nothing that a job says, logs or stores."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dafh.stack import Stack
from tests.imaging.canaries import Canaries, encapsulated, jpeg, planted, png
from tests.jobs.reading import dicomdir

pytestmark = pytest.mark.stack

DAFH = str(Path(sys.executable).with_name("dafh"))
#: Exit codes of `encode` and `retrieve` whose file was refused.
REFUSED = (1, 3)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of images and others, with a name wherever one can be."""
    canaries = Canaries()
    folder = tmp_path / canaries.next().decode() / canaries.next().decode()
    folder.mkdir(parents=True)
    contents = {
        "whole": planted(canaries),
        "cut": planted(canaries)[:9999],
        "text": canaries.next() * 9,
        "png": png(canaries),
        "jpeg": jpeg(canaries),
        "syntax": planted(canaries, syntax=canaries.next(), pixels=encapsulated(b"")),
    }
    for kind, data in contents.items():
        (folder / f"{canaries.next().decode()} {kind}").write_bytes(data)
    with zipfile.ZipFile(folder / f"{canaries.next().decode()}.zip", "w") as archive:
        archive.writestr(f"{canaries.next().decode()}/x", planted(canaries))
        archive.writestr(canaries.next().decode(), canaries.next() * 9)
    with tarfile.open(folder / f"{canaries.next().decode()}.tar.gz", "w:gz") as archive:
        archive.add(folder / next(folder.glob("*whole")), canaries.next().decode())
    (folder / "DICOMDIR").write_bytes(
        dicomdir([[canaries.next().decode().replace("^", "_"), "GONE"]])
    )
    (folder / f"{canaries.next().decode()}.tgz").write_bytes(canaries.next() * 9)
    return tmp_path


def said(*words: str | Path) -> tuple[subprocess.CompletedProcess[str], str]:
    answer = subprocess.run(
        [DAFH, *map(str, words)], capture_output=True, text=True, timeout=120, check=False
    )
    assert "Traceback" not in answer.stderr
    return answer, answer.stdout + answer.stderr


def test_indexing_says_and_stores_no_name(
    source: Path, stack_data_dir: Path, tmp_path: Path
) -> None:
    report, journal = tmp_path / "out" / "report", tmp_path / "out" / "journal"
    words: list[str | Path] = ["index", source, "--data-dir", stack_data_dir, "--report", report]
    # An archive of its own: others on this stack hold the same phantoms.
    answer, heard = said(*words, "--journal", journal, "--archive", "canary")
    # What the DICOMDIR names is not there, and one archive is none.
    assert answer.returncode == 1, heard
    assert "SOURCE_UNREADABLE 1" in heard
    assert "CONTAINER_DAMAGED 1" in heard
    assert "stored: added 3" in heard
    assert not Canaries.sings(heard)
    logs = [stack_data_dir.with_suffix(".log")]
    kept = [file for file in (*stack_data_dir.rglob("*"), *report.parent.rglob("*"))
            if file.is_file()]  # fmt: skip
    assert {"outcomes.parquet", "report.html", "report.json", "journal"} <= {f.name for f in kept}
    for file in [*logs, *kept]:
        assert b"CNRY" not in file.read_bytes(), file
    told = json.dumps(pq.read_table(report / "outcomes.parquet").to_pylist())
    assert not Canaries.sings(told)
    assert journal.stat().st_mode & 0o077 == 0


def test_a_dry_run_says_no_name(source: Path) -> None:
    for words in ((), ("--json",)):
        answer, heard = said("index", source, "--dry-run", *words)
        assert answer.returncode == 0, heard
        assert not Canaries.sings(heard)


def test_commands_repeat_the_callers_words_and_no_others(
    source: Path, stack: Stack, stack_data_dir: Path
) -> None:
    said("index", source, "--data-dir", stack_data_dir, "--no-journal")
    kinds = ("whole", "cut", "text", "png", "jpeg", "syntax")
    files = sorted(file for file in source.rglob("*") if file.name.endswith(kinds))
    server = ["--json", "--server", stack.gateway.address]
    refused = 0
    commands: list[list[str | Path]] = [["encode", *files, "--json"]]
    looked_up = [file for file in files if file.name.endswith(("whole", "cut"))]
    commands += [["retrieve", file, *server] for file in looked_up]
    for words in commands:
        answer, _ = said(*words)
        refused += answer.returncode in REFUSED
        assert answer.returncode in (0, *REFUSED), answer.stderr
        assert not Canaries.sings(answer.stderr)
        own = answer.stdout
        for file in files:
            own = own.replace(json.dumps(str(file)), "")
        assert not Canaries.sings(own)
    # One of two, and the encoding of all.
    assert refused == 2
