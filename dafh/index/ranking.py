"""What every adapter must agree on: the order of hits, and which row of a conflict stands.

Pure functions; an adapter only finds candidates and stores rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dafh.codes import asymmetric, hamming
from dafh.index.case import Case, CaseId
from dafh.index.port import Exclude, Outcome, Query
from dafh.index.schema import metadata_sha256


class Placed(NamedTuple):
    """A candidate's place in an answer."""

    #: Row of the candidate list.
    row: int
    #: Hamming distance in bits.
    distance: int
    #: `asymmetric` distance, or distance / bits where the query has no hash output.
    score: float


def rank(query: Query, ids: NDArray[np.str_], packed: NDArray[np.uint8]) -> list[Placed]:
    """Order candidates by Hamming distance, score and primary key; keep the answer's length.

    Parameters
    ----------
    query
        Its `top_k` and `max_distance` apply; its exclusions were applied before.
    ids
        ``[N]`` primary keys.
    packed
        uint8 ``[N, bits / 8]`` codes, in the same order.
    """
    distances = hamming(query.code, packed)
    near = np.flatnonzero(distances <= _farthest(query))
    if near.size > query.top_k:
        # Only what is as near as the last hit can be in the answer; its ties are among them.
        last = np.partition(distances[near], query.top_k - 1)[query.top_k - 1]
        near = near[distances[near] <= last]
    if query.hash_output is None:
        scores = distances[near] / query.code.bits
    else:
        scores = asymmetric(query.hash_output, packed[near])
    order = np.lexsort((ids[near], scores, distances[near]))[: query.top_k]
    return [
        Placed(int(near[place]), int(distances[near[place]]), float(scores[place]))
        for place in order
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


def _farthest(query: Query) -> int:
    bits = query.code.bits
    return bits if query.max_distance is None else min(query.max_distance, bits)
