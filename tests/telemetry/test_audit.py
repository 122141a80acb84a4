"""The audit: nothing that was written is changed, left out or put in unseen."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

import pytest

from dafh.errors import Misconfigured
from dafh.telemetry.audit import Audit, Event, link, verify

EVENT = Event("app", "north", "Retrieve", "default", 10, "OK", "", "0" * 32)


def written(folder: Path, count: int = 20) -> Path:
    audit = Audit(folder)
    for _ in range(count):
        audit.record(EVENT)
    audit.close()
    (file,) = folder.iterdir()
    return file


def test_a_whole_chain_is_whole(tmp_path: Path) -> None:
    file = written(tmp_path)
    (verdict,) = verify(file.read_text().splitlines())
    assert (verdict.fault, verdict.records, verdict.closed) == ("", 22, True)
    assert file.stat().st_mode & 0o777 == 0o600


def altered(lines: list[str]) -> None:
    record = json.loads(lines[5])
    record["subject"] = "somebody else"
    lines[5] = json.dumps(record)


def rehashed(lines: list[str]) -> None:
    """Alter a record and give it the hash that it should have then."""
    record = json.loads(lines[5])
    record["count"] = 0
    del record["hash"]
    record["hash"] = link(json.dumps(record, sort_keys=True))
    lines[5] = json.dumps(record)


def swapped(lines: list[str]) -> None:
    lines[5], lines[6] = lines[6], lines[5]


CHANGES: dict[str, Callable[[list[str]], object]] = {
    "altered": altered,
    "altered and hashed anew": rehashed,
    "taken out": lambda lines: lines.pop(5),
    "put in": lambda lines: lines.insert(5, lines[4]),
    "swapped": swapped,
    "begun later": lambda lines: lines.pop(0),
    "something after the end": lambda lines: lines.append(lines[3]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_chain_is_broken(tmp_path: Path, name: str) -> None:
    lines = written(tmp_path).read_text().splitlines()
    CHANGES[name](lines)
    (verdict,) = verify(lines)
    assert verdict.fault


def test_a_chain_without_its_end_says_so(tmp_path: Path) -> None:
    lines = written(tmp_path).read_text().splitlines()
    (verdict,) = verify(lines[:-3])
    assert (verdict.fault, verdict.closed, verdict.records) == ("", False, 19)


def test_chains_among_other_lines_are_found(tmp_path: Path) -> None:
    long, short = (
        written(tmp_path / name, count).read_text().splitlines()
        for name, count in (("a", 20), ("b", 10))
    )
    foreign = ['{"message": "serving"}', "plain text", "[1]"]
    # As processes that share a log write it: by turns, with what they say besides.
    mixed = [
        line
        for number, turn in enumerate(zip_longest(long, short))
        for line in (*turn, foreign[number % len(foreign)])
        if line is not None
    ]
    assert [(one.fault, one.records) for one in verify(mixed)] == [("", 22), ("", 12)]
    mixed.remove(short[4])
    assert [bool(one.fault) for one in verify(mixed)] == [False, True]


def test_threads_write_one_chain(tmp_path: Path) -> None:
    audit = Audit(tmp_path)

    def write() -> None:
        for _ in range(200):
            audit.record(EVENT)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    audit.close()
    (file,) = tmp_path.iterdir()
    (verdict,) = verify(file.read_text().splitlines())
    assert (verdict.fault, verdict.records) == ("", 1602)


def test_the_command_line_tells_whole_from_broken(tmp_path: Path) -> None:
    file = written(tmp_path)
    dafh = str(Path(sys.executable).with_name("dafh"))

    def run() -> tuple[int, str]:
        done = subprocess.run(
            [dafh, "audit", "verify", str(tmp_path)], capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout

    assert run()[0] == 0
    file.write_text(file.read_text().replace("Retrieve", "Encode", 1))
    status, said = run()
    assert status == 1
    assert "altered" in said


def test_a_folder_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured):
        Audit(tmp_path / "file")
