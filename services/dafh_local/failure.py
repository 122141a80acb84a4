"""Why a part did not start, read from the end of its log."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from dafh.errors import Misconfigured, Reason
from dafh_local.disk import disk_full
from dafh_local.environment import library_missing
from dafh_local.parts import Part
from dafh_local.plan import log_file

#: A disk with less free space is what a part that did not start ran into, bytes.
FULL_BYTES = 1 << 20
#: How much of a log's end is looked at, bytes.
TAIL_BYTES = 16 << 10


def _port_in_use(part: Part, _folder: Path, _found: re.Match[str]) -> Misconfigured:
    return Misconfigured(
        Reason.PORT_IN_USE,
        f"A port of {part.title} was taken while it started.",
        remedy=f"Choose another with {' or '.join(part.ports)} (0 takes any free one).",
    )


#: What programs say -> the error that says it clearly.
KNOWN: tuple[tuple[re.Pattern[str], Callable[[Part, Path, re.Match[str]], Misconfigured]], ...] = (
    (
        re.compile(r"No space left on device|Disk quota exceeded|File too large|disk is full"),
        lambda _part, folder, _found: disk_full(folder),
    ),
    (
        re.compile(r"error while loading shared libraries: (\S+):"),
        lambda part, _folder, found: library_missing(part.title, [found[1]], part.repair),
    ),
    (re.compile(r"[Aa]ddress already in use|[Ff]ailed to bind"), _port_in_use),
)


def explain(part: Part, data_dir: Path, what: str) -> Misconfigured:
    """Return the error for a part that did not start: `what` it did, and why if its log says so."""
    if shutil.disk_usage(data_dir).free < FULL_BYTES:
        # The part could not write down what it died of.
        return disk_full(data_dir)
    log = log_file(data_dir, part.name)
    text = log.read_bytes()[-TAIL_BYTES:].decode(errors="replace") if log.exists() else ""
    for pattern, error in KNOWN:
        found = pattern.search(text)
        if found:
            return error(part, data_dir, found)
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
    said = f"; its last words: {last[:300]}" if last else ""
    return Misconfigured(
        Reason.START_FAILED, f"{part.title} {what}{said}.", remedy=f"See {log} for more."
    )


def set_aside(log: Path) -> None:
    """Keep the log of the run before as ``.old``: a log holds one run, two of them are kept."""
    if log.exists():
        log.replace(log.with_suffix(".log.old"))
