"""What became of each file, on disk, so that a job goes on where it was cut off.

A file is written down after the index has acknowledged all of it. Whatever is lost with a journal,
or never came into it, is done again and ends the same: keys and content hashes in the index see to
that. It holds no name: a path is its keyed HMAC, a file is named by the SHA-256 of its bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from enum import StrEnum
from pathlib import Path

from dafh.errors import Misconfigured, Reason
from dafh_jobs.sources import Entry, Labels

#: Version of the tables.
LAYOUT = 1
#: How every file of SQLite begins (https://sqlite.org/fileformat.html, 1.3.1).
_SQLITE = b"SQLite format 3\0"


class Outcome(StrEnum):
    """What became of a file."""

    #: All its frames that were wanted are in the archive.
    INDEXED = "indexed"
    #: As above, but for a frame the archive had other pixels or metadata: one of the two stands.
    CONFLICT = "conflict"
    #: It can never be indexed; the reason says why.
    REFUSED = "refused"
    #: The selection leaves it out.
    NOT_SELECTED = "not_selected"
    #: Another shard has it.
    OTHER_SHARD = "other_shard"
    #: It could not be read, or cost its decoder twice; running the job again may help.
    UNREADABLE = "unreadable"

    @property
    def left_out(self) -> bool:
        """Whether nobody puts the file into the archive."""
        return self in {Outcome.REFUSED, Outcome.NOT_SELECTED, Outcome.UNREADABLE}


@dataclass(slots=True)
class Record:
    """A file and what became of it; the fields are the columns of the journal."""

    #: Keyed HMAC of its name.
    name: bytes
    #: Changes when file or labels do.
    stamp: str
    #: Tells apart what a table says of it.
    labels: str
    #: SHA-256 of its bytes; "" where they could not be read.
    sha256: str = ""
    bytes: int = 0
    outcome: Outcome = Outcome.INDEXED
    #: `dafh.errors.Reason` of what was refused or unreadable.
    reason: str = ""
    sop_instance_uid: str = ""
    modality: str = ""
    transfer_syntax: str = ""
    #: Frames in the archive, by what the index said of each (`dafh.index.port.Outcome`).
    added: int = 0
    unchanged: int = 0
    metadata_conflict: int = 0
    pixel_conflict: int = 0
    #: Seconds from reading it to its last decoded frame.
    seconds: float = 0.0
    #: Another file, done before, has the same bytes, and so the same outcome and frames.
    twin: bool = False
    #: The file at this name had other bytes before.
    changed: bool = False

    @property
    def frames(self) -> int:
        """Frames of it in the archive."""
        return self.added + self.unchanged + self.metadata_conflict + self.pixel_conflict


COLUMNS = tuple(field.name for field in fields(Record))
_KINDS = {"name": "BLOB PRIMARY KEY", "stamp": "TEXT", "seconds": "REAL"}
_INTEGERS = frozenset({"bytes", "added", "unchanged", "metadata_conflict", "pixel_conflict",
                       "twin", "changed"})  # fmt: skip


class Journal:
    """The journal of one job, of one shard; for one program at a time, and many threads of it.

    Parameters
    ----------
    path
        Made where it is missing, mode 0600. Not on a network share: its locks are not kept there.
        ``None`` keeps it in a file without a name, which is gone however the program ends.
    key
        Secret key, from which the one for names is derived.
    context
        What else decides on the outcome of a file: archive, model, limits, selection, shard. What
        was written in another context does not count.

    Raises
    ------
    Misconfigured
        Another job uses it, it is no journal of this version, or it cannot be written.
    """

    def __init__(self, path: Path | None, key: bytes, context: str) -> None:
        self._key = hmac.digest(key, b"dafh job journal", "sha256")
        self._lock = threading.Lock()
        if path is not None:
            _prepare(path)
        with self._guarded():
            self._database = sqlite3.connect(
                path or "", check_same_thread=False, isolation_level=None, timeout=1.0
            )
            self._open(context)

    def _open(self, context: str) -> None:
        execute = self._database.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")
        (layout,) = execute("PRAGMA user_version").fetchone()
        (tables,) = execute("SELECT count(*) FROM sqlite_master").fetchone()
        if layout == 0 and tables:
            raise _foreign()
        if layout not in (0, LAYOUT):
            raise _unusable(f"it is of version {layout}")
        execute("PRAGMA journal_mode = WAL")
        # A power cut may take the last transactions, never the file.
        execute("PRAGMA synchronous = NORMAL")
        columns = ", ".join(
            f"{name} {_KINDS.get(name, 'INTEGER' if name in _INTEGERS else 'TEXT')}"
            for name in COLUMNS
        )
        execute("BEGIN IMMEDIATE")
        execute(f"CREATE TABLE IF NOT EXISTS file ({columns}, context INTEGER, run INTEGER)")
        execute("CREATE INDEX IF NOT EXISTS by_content ON file (sha256)")
        execute("CREATE TABLE IF NOT EXISTS context (id INTEGER PRIMARY KEY, text TEXT UNIQUE)")
        execute("CREATE TABLE IF NOT EXISTS run (id INTEGER PRIMARY KEY, seconds REAL)")
        execute(f"PRAGMA user_version = {LAYOUT}")
        execute("INSERT OR IGNORE INTO context (text) VALUES (?)", (context,))
        (self._context,) = execute("SELECT id FROM context WHERE text = ?", (context,)).fetchone()
        self._run = execute("INSERT INTO run (seconds) VALUES (0)").lastrowid
        execute("COMMIT")

    def record_of(self, entry: Entry) -> Record:
        """Return an empty record of a file."""
        name = hmac.digest(self._key, entry.name.encode(errors="surrogateescape"), "sha256")
        labels = _digest(entry.labels)
        return Record(name, entry.stamp and f"{entry.stamp} {labels}", labels)

    def knows(self, record: Record) -> bool:
        """Say whether a file was done before and is as it was; if so it counts for this run."""
        if not record.stamp:
            return False
        with self._guarded():
            touched = self._database.execute(
                "UPDATE file SET run = ? WHERE name = ? AND stamp = ? AND context = ?"
                " AND outcome != ?",
                (self._run, record.name, record.stamp, self._context, Outcome.UNREADABLE),
            )
            return touched.rowcount > 0

    def twin(self, record: Record) -> Record | None:
        """Return what became of a file with the same bytes and labels, this one included."""
        with self._guarded():
            row = self._database.execute(
                f"SELECT {', '.join(COLUMNS)} FROM file WHERE sha256 = ? AND labels = ?"  # noqa: S608 - our own names
                " AND context = ? AND outcome != ? ORDER BY twin LIMIT 1",
                (record.sha256, record.labels, self._context, Outcome.UNREADABLE),
            ).fetchone()
        return None if row is None else _record(row)

    def write(self, records: Iterable[Record]) -> None:
        """Write down what became of files; on return a killed program has not forgotten it."""
        rows = [(*astuple(record), self._context, self._run) for record in records]
        if not rows:
            return
        marks = ", ".join("?" * (len(COLUMNS) + 2))
        changed = COLUMNS.index("changed")
        with self._guarded():
            self._database.execute("BEGIN IMMEDIATE")
            for row in rows:
                before = self._database.execute(
                    "SELECT sha256 FROM file WHERE name = ? AND sha256 != ''", row[:1]
                ).fetchone()
                other = before is not None and row[COLUMNS.index("sha256")] not in ("", before[0])
                told = (*row[:changed], other, *row[changed + 1 :])
                self._database.execute(f"INSERT OR REPLACE INTO file VALUES ({marks})", told)  # noqa: S608 - marks only
            self._database.execute("COMMIT")

    def records(self) -> Iterator[Record]:
        """Yield what became of all files that this run has met, in order of their bytes.

        Of files with the same bytes those come first that were no twins when they were met.
        """
        with self._guarded(), closing(self._database.cursor()) as cursor:
            rows = cursor.execute(
                f"SELECT {', '.join(COLUMNS)} FROM file WHERE run = ? AND outcome != ?"  # noqa: S608 - our own names
                " ORDER BY sha256, twin, name",
                (self._run, Outcome.OTHER_SHARD),
            )
            for row in rows:
                yield _record(row)

    def close(self) -> None:
        """Close it."""
        self._database.close()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Take turns, and say what is wrong in our words."""
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise _translated(error) from None


def _prepare(path: Path) -> None:
    """Make the file of a journal, where nothing else is in it."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            path.touch(0o600)
        with path.open("rb") as stream:
            if stream.read(len(_SQLITE)) not in (b"", _SQLITE):
                raise _foreign()
        path.chmod(0o600)
    except OSError as error:
        raise _unusable(f"it cannot be written ({error.strerror})") from None


def _translated(error: sqlite3.Error) -> Misconfigured:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return Misconfigured(
            Reason.DISK_FULL,
            "The disk of the journal is full.",
            remedy="Make room, then run the same command again: it goes on where it was.",
            subject="journal",
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Misconfigured(
            Reason.ALREADY_RUNNING,
            "Another job uses the journal.",
            remedy="Wait for it, or give this one a journal of its own.",
            subject="journal",
        )
    return _unusable("it is damaged, or the disk is")


def _unusable(
    why: str,
    remedy: str = "Name another file, or remove it: the job then does its work again, with the "
    "same result.",
) -> Misconfigured:
    return Misconfigured(
        Reason.SETTING_INVALID,
        f"The journal cannot be used: {why}.",
        remedy=remedy,
        subject="journal",
    )


def _foreign() -> Misconfigured:
    return _unusable("the file is no journal", "Name another one; this one is left as it is.")


def _record(row: tuple[object, ...]) -> Record:
    record = Record(*row)  # type: ignore[arg-type]  # columns are the fields, in order
    record.outcome = Outcome(record.outcome)
    record.twin, record.changed = bool(record.twin), bool(record.changed)
    return record


def _digest(labels: Labels) -> str:
    if labels == Labels():
        return ""
    text = f"{len(labels.label)} {labels.label} {labels.cancer_type}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]
