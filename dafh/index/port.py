"""The port that every index adapter serves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.imaging.image import PatientKey
from dafh.index.case import Case, CaseId, Coding
from dafh.index.filters.tree import Filter

#: Largest candidate list: Milvus returns no more from one search.
MAX_CANDIDATES = 16_384

#: Longest answer.
MAX_TOP_K = 1000

#: Limits of a query and the field whose cases each counts together; "" is counted with no other.
CAPS = (
    ("max_hits_per_patient", "patient_key"),
    ("max_hits_per_series", "series_instance_uid"),
)


class Outcome(StrEnum):
    """What became of one case of an upsert."""

    ADDED = "added"
    #: The stored row says the same, ingest time apart.
    UNCHANGED = "unchanged"
    #: Same frame and pixels, other metadata: the row with the smallest metadata hash stands.
    METADATA_CONFLICT = "metadata_conflict"
    #: Same SOP Instance UID and frame, other pixels: the smallest content hash stands.
    PIXEL_CONFLICT = "pixel_conflict"


@dataclass(frozen=True, slots=True)
class Exclude:
    """What may not fill an answer: the query's own instance, study, patient ("" excludes none)."""

    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    patient_key: PatientKey = PatientKey("")


class Position(NamedTuple):
    """A place in an answer. Positions are ordered as hits are, and no two cases share one."""

    distance: int
    score: float
    id: CaseId


@dataclass(frozen=True, slots=True)
class Query:
    """A question to the index."""

    code: HashCode
    #: Length of the answer, or of this page of it, 1 to 1000.
    top_k: int
    #: float32 ``[bits]``: orders ties; without it they are ordered by primary key.
    hash_output: NDArray[np.float32] | None = None
    #: Largest Hamming distance in bits, inclusive.
    max_distance: int | None = None
    exclude: Exclude = Exclude()
    #: Which cases may answer; ``None`` for all.
    filter: Filter | None = None
    #: Most hits of one patient, counted from the nearest case and over all pages. Each case of an
    #: unknown patient counts as a patient of its own.
    max_hits_per_patient: int | None = None
    #: The same of one series.
    max_hits_per_series: int | None = None
    #: Answer with what follows this place: `Found.end` of the page before.
    after: Position | None = None

    @property
    def caps(self) -> dict[str, int]:
        """The limits that are set, by the field that they count (`CAPS`)."""
        limits = ((field, getattr(self, name)) for name, field in CAPS)
        return {field: most for field, most in limits if most is not None}


@dataclass(frozen=True, slots=True)
class Hit:
    """A case and how near it is."""

    case: Case
    #: Hamming distance in bits.
    distance: int
    #: Asymmetric distance in [0, 1]; distance / bits where the query has no hash output.
    score: float

    @property
    def position(self) -> Position:
        """Its place in the answer."""
        return Position(self.distance, self.score, self.case.id)


@dataclass(frozen=True, slots=True)
class Found:
    """An answer: hits ordered by distance, score, primary key.

    A page is a part of the whole answer as that is when the page is asked for; one that is shorter
    than asked for is the last. So pages never repeat a case whose code stays the same, and while
    ties are not truncated they skip none that was there all the time, however many are added or
    deleted between them; except that under a limit per patient or series a case gives way to a
    nearer one that was added meanwhile.
    """

    hits: tuple[Hit, ...]
    #: More cases could be in the answer than a candidate list holds: which of those at the border
    #: are is arbitrary, and what follows the border is missing.
    ties_truncated: bool = False
    #: The index was searched approximately.
    approximate: bool = False

    @property
    def end(self) -> Position | None:
        """Place of the last hit, to ask for the next page with; ``None`` where there is none."""
        return self.hits[-1].position if self.hits else None


class CaseIndex(Protocol):
    """One coding of one archive. Every call keeps its deadline.

    Raises (every call)
    -------------------
    Unavailable
        The index does not answer; waiting helps.
    DeadlineExceeded
        It did not answer in time.
    """

    @property
    def coding(self) -> Coding:
        """What the index holds."""
        ...

    def upsert(self, cases: Sequence[Case], deadline: Deadline) -> list[Outcome]:
        """Store cases; on return they are searchable and survive a crash.

        Returns
        -------
        list[Outcome]
            One per case, in order. The stored result is the same for every order of arrival.

        Raises
        ------
        InvalidInput
            A field is too long, a UID malformed or a code of another length; nothing is stored.
        """
        ...

    def search(self, query: Query, deadline: Deadline) -> Found:
        """Return the nearest cases."""
        ...

    def get(self, ids: Sequence[CaseId], deadline: Deadline) -> dict[CaseId, Case]:
        """Return those of the cases that exist."""
        ...

    def delete(self, ids: Sequence[CaseId], deadline: Deadline) -> int:
        """Delete cases; return how many existed."""
        ...

    def count(self, deadline: Deadline) -> int:
        """Return the number of cases."""
        ...

    def scan(
        self, deadline: Deadline, *, after: str = "", before: str | None = None
    ) -> Iterator[Case]:
        """Yield cases in order of primary key; all that was acknowledged before is seen.

        Cases that are written meanwhile may be seen or not; no other is skipped or repeated.

        Parameters
        ----------
        after, before
            Primary keys greater and smaller than these only; "" is smaller than all.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
