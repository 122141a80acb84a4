"""A journal touches nothing that is not its own, and leaves nothing that nobody asked for."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from dafh.errors import Misconfigured
from dafh_jobs.journal import Journal, Record

KEY = b"k" * 32


def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "precious.txt"
    file.write_text("Dear colleague.\n")
    file.chmod(0o644)
    before = file.stat()
    with pytest.raises(Misconfigured, match="no journal") as refusal:
        Journal(file, KEY, "")
    assert "remove" not in str(refusal.value)
    after = file.stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert file.read_text() == "Dear colleague.\n"


def test_a_database_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "precious.sqlite"
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE photograph (name TEXT)")
    before = file.read_bytes()
    with pytest.raises(Misconfigured, match="no journal"):
        Journal(file, KEY, "")
    assert file.read_bytes() == before


def test_a_journal_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    Journal(file, KEY, "").close()
    file.chmod(0o644)
    Journal(file, KEY, "").close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_journal_for_one_run_has_no_name_on_any_disk() -> None:
    """Whoever kills the program leaves nothing behind."""
    before = names_of_open_files()
    journal = Journal(None, KEY, "")
    records = [Record(b"%d" % number, "", "", f"{number:064}") for number in range(40_000)]
    journal.write(records)
    # It is on disk all the same: memory stays flat.
    made = names_of_open_files() - before
    assert made
    assert all(name.endswith(" (deleted)") for name in made)
    assert [record.name for record in journal.records()] == [record.name for record in records]
    journal.close()


def names_of_open_files() -> set[str]:
    """Return what this process has open, as proc(5) names it."""
    return {str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()}
