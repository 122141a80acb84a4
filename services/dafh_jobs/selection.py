"""Which instances and frames of a source are taken: a small file of rules.

The first rule that fits an instance decides; what none fits is not taken::

    [[rule]]
    modality = ["CT", "MR"]
    series_description = ["*thorax*", "*chest*"]
    slices = "representative"      # of a series: all, representative, key, or n for every n-th
    frames = "all"                 # of an instance: all, representative

    [[rule]]
    modality = ["SR", "SEG"]
    take = false

    [[rule]]                       # everything else

Where a slice stands in its series, and which ones somebody marked as key images, is known only when
the source has been gone through once: then it is read twice (`Survey`).
"""

from __future__ import annotations

import sqlite3
import tomllib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dafh.errors import InvalidInput, Misconfigured, Reason
from dafh.imaging.outline import Outline


class Frames(StrEnum):
    """Which frames of an instance are taken."""

    REPRESENTATIVE = "representative"
    ALL = "all"


class Slices(StrEnum):
    """Which instances of a series are taken."""

    ALL = "all"
    #: The middle one by Instance Number, then SOP Instance UID.
    REPRESENTATIVE = "representative"
    #: Those that a Key Object Selection of the source names.
    KEY = "key"


class Rule(BaseModel):
    """One rule; conditions that are left out hold for everything."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Modality (0008,0060) is one of these.
    modality: tuple[str, ...] = ()
    #: Series Description (0008,103E) has one of these forms; case does not count.
    series_description: tuple[str, ...] = ()
    take: bool = True
    #: A number n takes every n-th from the first on, in the order of `Slices.REPRESENTATIVE`.
    slices: Slices | Annotated[int, Field(ge=1)] = Slices.ALL
    frames: Frames = Frames.REPRESENTATIVE

    def fits(self, outline: Outline) -> bool:
        """Say whether it decides on an instance."""
        described = any(map(outline.describes, self.series_description or ("*",)))
        return described and (not self.modality or outline.modality in self.modality)


class _Rules(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """What is taken of an instance, and by which rule, from 1; 0 where none fits."""

    frames: Frames | None
    rule: int = 0


#: Without a file of rules: everything.
EVERYTHING = (Rule(),)


class Selection:
    """Rules, and what they need to know of the whole source.

    Parameters
    ----------
    rules
        In order.
    """

    def __init__(self, rules: Sequence[Rule] = EVERYTHING) -> None:
        self.rules = tuple(rules)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file of rules.

        Raises
        ------
        InvalidInput
            It cannot be read, or holds something that no rule has.
        """
        try:
            return cls(_Rules.model_validate(tomllib.loads(path.read_text())).rule)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no TOML"
            raise _invalid(f"it cannot be read ({why})") from None
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise _invalid(f"{place}: {first['msg']}") from None

    @property
    def looks_inside(self) -> bool:
        """Whether files are looked into before they are decoded."""
        return any(rule != Rule(frames=rule.frames) for rule in self.rules)

    @property
    def needs_survey(self) -> bool:
        """Whether the source is read twice."""
        return any(rule.slices not in {Slices.ALL, 1} for rule in self.rules)

    @property
    def text(self) -> str:
        """What tells two selections apart."""
        return _Rules(rule=self.rules).model_dump_json()

    def choose(self, outline: Outline | None, survey: Survey | None) -> Choice:
        """Return what is taken of an instance; of a picture without elements, `outline` is none."""
        if outline is None:
            outline = Outline("", "", "", 0, (), "")
        for number, rule in enumerate(self.rules, 1):
            if rule.fits(outline):
                taken = rule.take and _takes(rule.slices, outline, survey)
                return Choice(rule.frames if taken else None, number)
        return Choice(None)


class Survey:
    """What a whole source says of its series, in a file without a name; it holds UIDs only."""

    def __init__(self) -> None:
        # Nothing is left behind, however the program ends (https://sqlite.org/inmemorydb.html).
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE instance (sop TEXT PRIMARY KEY, series TEXT, number INTEGER)"
            " WITHOUT ROWID;"
            "CREATE INDEX by_series ON instance (series, number, sop);"
            "CREATE TABLE key_image (sop TEXT PRIMARY KEY) WITHOUT ROWID;"
        )

    def add(self, outline: Outline) -> None:
        """Take an instance into account; again is no fault.

        Raises
        ------
        Misconfigured
            The disk is full.
        """
        try:
            if outline.key_images:
                rows = [(sop,) for sop in outline.key_images]
                self._database.executemany("INSERT OR IGNORE INTO key_image VALUES (?)", rows)
            elif outline.sop_instance_uid:
                self._database.execute(
                    # Of two files of one instance the same one counts in every order.
                    "INSERT INTO instance VALUES (?1, ?2, ?3) ON CONFLICT (sop) DO UPDATE SET"
                    " (series, number) = (?2, ?3) WHERE (?2, ?3) < (series, number)",
                    (
                        outline.sop_instance_uid,
                        outline.series_instance_uid,
                        outline.instance_number,
                    ),
                )
        except sqlite3.OperationalError:
            raise Misconfigured(
                Reason.DISK_FULL,
                "What the selection has to know of the source cannot be kept: a disk is full.",
                remedy="Make room for temporary files, or set TMPDIR to another disk; then run the "
                "same command again.",
                subject="selection",
            ) from None

    def is_representative(self, outline: Outline) -> bool:
        """Say whether an instance is the middle one of its series."""
        return outline.sop_instance_uid == self._first(
            "SELECT sop FROM instance WHERE series = ?1 ORDER BY number, sop LIMIT 1"
            " OFFSET (SELECT count(*) / 2 FROM instance WHERE series = ?1)",
            outline.series_instance_uid,
        )

    def place(self, outline: Outline) -> int:
        """Return how many instances of its series come before an instance."""
        before = self._first(
            "SELECT count(*) FROM instance AS one, instance AS other WHERE one.sop = ?"
            " AND other.series = one.series"
            " AND (other.number, other.sop) < (one.number, one.sop)",
            outline.sop_instance_uid,
        )
        return int(before or 0)

    def is_key_image(self, outline: Outline) -> bool:
        """Say whether a Key Object Selection names an instance."""
        which = "SELECT sop FROM key_image WHERE sop = ?"
        return self._first(which, outline.sop_instance_uid) is not None

    def _first(self, which: str, uid: str) -> str | int | None:
        with closing(self._database.cursor()) as cursor:
            found: tuple[str | int] | None = cursor.execute(which, (uid,)).fetchone()
        return found[0] if found else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._database.close()


def _takes(slices: Slices | int, outline: Outline, survey: Survey | None) -> bool:
    if survey is None or slices is Slices.ALL:
        return True
    if slices is Slices.KEY:
        return survey.is_key_image(outline)
    # An instance of no series is alone in its own.
    if not outline.series_instance_uid:
        return True
    if slices is Slices.REPRESENTATIVE:
        return survey.is_representative(outline)
    return survey.place(outline) % slices == 0


def _invalid(why: str) -> InvalidInput:
    return InvalidInput(
        Reason.SELECTION_INVALID,
        f"The selection cannot be used: {why}.",
        remedy="docs/jobs.md shows one.",
        subject="selection",
    )
