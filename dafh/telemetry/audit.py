"""The audit: who did what, when, to which archive, and how much of it was seen.

One chain a process: each record holds the SHA-256 of the one before, so that none can be altered,
taken out or put in without a break that `verify` finds. A chain that was replaced as a whole agrees
with itself; so its head is told to the ordinary log, which goes elsewhere, now and then and at the
end.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from dafh.errors import Misconfigured, Reason

#: What comes before the first record.
NOTHING = "0" * 64
#: Records between which the head of the chain is told to the log.
TOLD_EVERY = 1000
#: Kinds of records at both ends.
OPENED, CLOSED, CALL = "opened", "closed", "call"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """What is kept of a call; nothing of a patient, and none of the caller's own words."""

    subject: str
    tenant: str
    method: str
    archive: str
    #: Hits, cases or archives that were answered with, stored or erased.
    count: int
    #: Status code, and the reason where it is not OK.
    code: str
    reason: str
    request_id: str


class Audit:
    """Writes one chain; for many threads at once.

    Parameters
    ----------
    folder
        Where its file goes; ``None`` for standard output.

    Raises
    ------
    Misconfigured
        The file cannot be made.
    """

    def __init__(self, folder: Path | None) -> None:
        self.chain = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._head, self._number = NOTHING, 0
        self._descriptor = sys.stdout.fileno() if folder is None else self._open(folder)
        self._owned = folder is not None
        self._closed = False
        self._write({"kind": OPENED})

    def record(self, event: Event) -> None:
        """Write down a call.

        Raises
        ------
        OSError
            It cannot be written: nobody may be told that the call has worked.
        """
        self._write({"kind": CALL, **asdict(event)})

    def close(self) -> None:
        """End the chain."""
        if self._closed:
            return
        self._write({"kind": CLOSED})
        self._closed = True
        self._tell()
        if self._owned:
            os.fsync(self._descriptor)
            os.close(self._descriptor)

    def _open(self, folder: Path) -> int:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(
                folder / f"audit-{self.chain}.jsonl",
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND,
                0o600,
            )
        except OSError as error:
            raise Misconfigured(
                Reason.SETTING_INVALID,
                f"The audit cannot be written below {folder} ({error.strerror}).",
                subject="audit_dir",
            ) from None

    def _write(self, facts: dict[str, object]) -> None:
        with self._lock:
            record = {
                "audit": self.chain,
                "number": self._number,
                "time": round(time.time(), 3),
                **facts,
                "before": self._head,
            }
            line = json.dumps(record, sort_keys=True)
            head = link(line)
            # At once and whole: a process that is killed has written it or not.
            data = f"{line[:-1]}, {json.dumps('hash')}: {json.dumps(head)}}}\n".encode()
            if os.write(self._descriptor, data) != len(data):
                raise OSError("the audit was cut")
            self._head, self._number = head, self._number + 1
        if self._number % TOLD_EVERY == 0:
            self._tell()

    def _tell(self) -> None:
        facts = {"audit": self.chain, "records": self._number, "head": self._head}
        _log.info("audit", extra=facts)


@dataclass(slots=True)
class Verdict:
    """What a look at a chain says."""

    chain: str
    records: int = 0
    head: str = NOTHING
    #: Whether it has its last record; without, the process was killed, or the end was cut off.
    closed: bool = False
    #: Why it is not what was written; "" where it is.
    fault: str = ""


def verify(lines: Iterable[str]) -> list[Verdict]:
    """Check the chains in the lines of files or of standard output; other lines are passed over."""
    found: dict[str, Verdict] = {}
    for line in lines:
        record = _record(line)
        if record is None:
            continue
        verdict = found.setdefault(str(record["audit"]), Verdict(str(record["audit"])))
        if not verdict.fault:
            verdict.fault = _fault(record, verdict)
        if not verdict.fault:
            verdict.records += 1
            verdict.closed = record["kind"] == CLOSED
            verdict.head = str(record["hash"])
    return list(found.values())


def link(line: str) -> str:
    """Return what the next record holds of one: its SHA-256, without its own hash."""
    return hashlib.sha256(line.encode()).hexdigest()


def _record(line: str) -> dict[str, object] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    known = {"audit", "number", "before", "hash", "kind"}
    return record if isinstance(record, dict) and known <= set(record) else None


def _fault(record: dict[str, object], verdict: Verdict) -> str:
    number = verdict.records
    plain = {key: value for key, value in record.items() if key != "hash"}
    if record["number"] != number or verdict.closed:
        return f"record {number} is missing, or another stands in its place"
    if record["before"] != verdict.head:
        return f"record {number} does not follow the one before"
    if link(json.dumps(plain, sort_keys=True)) != record["hash"]:
        return f"record {number} was altered"
    return ""
