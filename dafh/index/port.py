"""The port that every index adapter serves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.imaging.image import PatientKey
from dafh.index.case import Case, CaseId, Coding

#: Largest candidate list: Milvus returns no more from one search.
MAX_CANDIDATES = 16_384

#: Longest answer.
MAX_TOP_K = 1000


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


@dataclass(frozen=True, slots=True)
class Query:
    """A question to the index."""

    code: HashCode
    #: Length of the answer, 1 to 1000.
    top_k: int
    #: float32 ``[bits]``: orders ties; without it they are ordered by primary key.
    hash_output: NDArray[np.float32] | None = None
    #: Largest Hamming distance in bits, inclusive.
    max_distance: int | None = None
    exclude: Exclude = Exclude()


@dataclass(frozen=True, slots=True)
class Hit:
    """A case and how near it is."""

    case: Case
    #: Hamming distance in bits.
    distance: int
    #: Asymmetric distance in [0, 1]; distance / bits where the query has no hash output.
    score: float


@dataclass(frozen=True, slots=True)
class Found:
    """An answer: hits ordered by distance, score, primary key."""

    hits: tuple[Hit, ...]
    #: More cases tie at the border than a candidate list holds: which of them answer is arbitrary.
    ties_truncated: bool = False
    #: The index was searched approximately.
    approximate: bool = False


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

    def scan(self, deadline: Deadline) -> Iterator[Case]:
        """Yield every case in order of primary key."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
