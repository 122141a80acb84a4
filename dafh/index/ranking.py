"""What every adapter must agree on: the order of hits, and which row of a conflict stands.

Pure functions; an adapter only finds candidates and stores rows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dafh.codes import asymmetric, hamming
from dafh.index.case import Case, CaseId
from dafh.index.filters.tree import matches
from dafh.index.port import Exclude, Outcome, Position, Query
from dafh.index.schema import metadata_sha256


class Placed(NamedTuple):
    """A candidate's place in an answer."""

    #: Row of the candidate list.
    row: int
    #: Hamming distance in bits.
    distance: int
    #: `asymmetric` distance, or distance / bits where the query has no hash output.
    score: float


@dataclass(frozen=True, slots=True)
class Candidates:
    """Cases that may be in an answer: ``N`` of them, in any order."""

    #: ``[N]`` primary keys.
    ids: NDArray[np.str_]
    #: uint8 ``[N, bits / 8]`` codes.
    packed: NDArray[np.uint8]
    #: ``[N]`` values of each field that the query's limits count (`Query.caps`).
    counted: Mapping[str, Sequence[str]] = field(default_factory=dict)


def rank(query: Query, candidates: Candidates) -> list[Placed]:
    """Order candidates by Hamming distance, score and primary key; keep the page asked for.

    The query's `max_distance`, its limits per patient and series, `after` and `top_k` apply, in
    that order. Its filter and exclusions say who is a candidate: they were applied before.
    """
    distances = hamming(query.code, candidates.packed)
    near = _shortlist(query, distances)
    distances, ids, packed = distances[near], candidates.ids[near], candidates.packed[near]
    if query.hash_output is None:
        scores = distances / query.code.bits
    else:
        scores = asymmetric(query.hash_output, packed)
    order = np.lexsort((ids, scores, distances))
    if query.caps:
        order = order[_under_caps(query.caps, candidates.counted, near[order])]
    start = 0
    if query.after is not None:
        start = bisect_right(
            order.tolist(),
            query.after,
            key=lambda place: Position(
                int(distances[place]), float(scores[place]), CaseId(str(ids[place]))
            ),
        )
    return [
        Placed(int(near[place]), int(distances[place]), float(scores[place]))
        for place in order[start : start + query.top_k]
    ]


def reach(query: Query, placed: Sequence[Placed]) -> int:
    """Return the Hamming distance up to which one more candidate could change the answer."""
    return placed[-1].distance if len(placed) == query.top_k else _farthest(query)


def ties_truncated(
    query: Query, packed: NDArray[np.uint8], placed: Sequence[Placed], max_candidates: int
) -> bool:
    """Say whether as many candidates reach into the answer's border as a list can hold.

    Then a candidate list may have left some out, and which of them answer is arbitrary.
    """
    if len(packed) < max_candidates:
        return False
    inside = np.count_nonzero(hamming(query.code, packed) <= reach(query, placed))
    return int(inside) >= max_candidates


def selects(query: Query, case: Case) -> bool:
    """Say whether a query's exclusions and filter let a case answer."""
    return not excluded(case, query.exclude) and (
        query.filter is None or matches(query.filter, case)
    )


def excluded(case: Case, exclude: Exclude) -> bool:
    """Say whether a case may not fill the answer; "" excludes none."""
    return (
        case.sop_instance_uid == exclude.sop_instance_uid
        or (
            exclude.study_instance_uid != ""
            and case.study_instance_uid == exclude.study_instance_uid
        )
        or (exclude.patient_key != "" and case.patient_key == exclude.patient_key)
    )


def resolve(stored: Case, arriving: Case) -> tuple[Case, Outcome]:
    """Return which of two rows of one frame stands, and how they disagree.

    The smallest content hash stands; among equal pixels the smallest metadata hash; among equal
    metadata the smallest code (rounding differs between machines), then the earliest ingest time.
    The order is total, so that every order of arrival ends with the same row.
    """
    if stored == arriving:
        # What is read back after it was written, mostly: hashes would say the same.
        return stored, Outcome.UNCHANGED
    standing = min(stored, arriving, key=_precedence)
    if stored.content_sha256 != arriving.content_sha256:
        return standing, Outcome.PIXEL_CONFLICT
    if metadata_sha256(stored) != metadata_sha256(arriving):
        return standing, Outcome.METADATA_CONFLICT
    return standing, Outcome.UNCHANGED


def merge(
    stored: Mapping[CaseId, Case], arriving: Sequence[Case]
) -> tuple[dict[CaseId, Case], list[Outcome]]:
    """Resolve a batch against what is stored, in order of arrival.

    Returns
    -------
    tuple[dict[CaseId, Case], list[Outcome]]
        The rows to write, those only that differ from what is stored; one outcome per arrival.
    """
    changed: dict[CaseId, Case] = {}
    outcomes = []
    for case in arriving:
        known = changed.get(case.id) or stored.get(case.id)
        standing, outcome = (case, Outcome.ADDED) if known is None else resolve(known, case)
        if standing != known:
            changed[case.id] = standing
        outcomes.append(outcome)
    return changed, outcomes


def _precedence(case: Case) -> tuple[str, str, str, int]:
    return case.content_sha256, metadata_sha256(case), case.code.hex(), case.ingest_time


def _shortlist(query: Query, distances: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows among which the page is, and all that a limit counts before it."""
    near = np.flatnonzero(distances <= _farthest(query))
    if query.caps:
        return near
    wanted = query.top_k
    if query.after is not None:
        near = near[distances[near] >= query.after.distance]
        # Any of those at the distance of the last hit may belong to the pages before.
        wanted += int(np.count_nonzero(distances[near] == query.after.distance))
    if near.size > wanted:
        # Only what is as near as the last hit can be in the answer; its ties are among them.
        last = np.partition(distances[near], wanted - 1)[wanted - 1]
        near = near[distances[near] <= last]
    return near


def _under_caps(
    caps: Mapping[str, int], counted: Mapping[str, Sequence[str]], rows: NDArray[np.int64]
) -> list[int]:
    """Return which of the ordered rows the limits leave."""
    hits: dict[str, Counter[str]] = {name: Counter() for name in caps}
    left = []
    for place, row in enumerate(rows):
        groups = {name: counted[name][row] for name in caps}
        if any(group and hits[name][group] >= caps[name] for name, group in groups.items()):
            continue
        for name, group in groups.items():
            hits[name][group] += 1
        left.append(place)
    return left


def _farthest(query: Query) -> int:
    bits = query.code.bits
    return bits if query.max_distance is None else min(query.max_distance, bits)
