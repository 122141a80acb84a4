"""Order, ties and conflicts: what every adapter relies on."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.imaging.image import PatientKey
from dafh.index.case import Case, CaseId, Coding
from dafh.index.exact import ExactIndex
from dafh.index.port import Exclude, Outcome, Query
from dafh.index.ranking import excluded, merge, rank, resolve
from dafh.index.schema import metadata_sha256

NewCoding = Callable[..., Coding]
NewCase = Callable[..., Case]

ZERO = HashCode(b"\0\0")
#: Surer of its first bit than of the others.
OUTPUT = np.array([-0.9] + [-0.1] * 15, np.float32)


def packed(*codes: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(codes), np.uint8).reshape(-1, 2)


def order(query: Query, ids: str, *codes: bytes) -> str:
    return "".join(ids[place.row] for place in rank(query, np.array(list(ids)), packed(*codes)))


def test_the_nearest_comes_first_then_the_surest_bit_then_the_smallest_key() -> None:
    codes = (b"\x80\0", b"\0\x01", b"\0\x03", b"\0\x02", b"\0\0")
    assert order(Query(ZERO, 9, OUTPUT), "abcde", *codes) == "ebdac"
    assert order(Query(ZERO, 9), "abcde", *codes) == "eabdc"


@pytest.mark.parametrize("top_k", [1, 2, 3, 4])
def test_a_shorter_answer_is_the_beginning_of_a_longer_one(top_k: int) -> None:
    codes = (b"\0\x01",) * 3 + (b"\0\0",)
    assert order(Query(ZERO, top_k, OUTPUT), "cbad", *codes) == "dabc"[:top_k]


def test_max_distance_is_inclusive() -> None:
    codes = (b"\0\x07", b"\0\x03", b"\0\x01")
    assert order(Query(ZERO, 9, max_distance=2), "abc", *codes) == "cb"


def test_the_score_is_the_share_of_bits_without_a_hash_output() -> None:
    (place,) = rank(Query(ZERO, 1), np.array(["a"]), packed(b"\0\x0f"))
    assert (place.distance, place.score) == (4, 0.25)


def test_nothing_is_ranked_in_an_empty_archive() -> None:
    assert rank(Query(ZERO, 3, OUTPUT), np.array([], np.str_), packed()) == []


def test_exclusion_knows_instance_study_and_patient_and_empty_excludes_none(
    new_coding: NewCoding, new_case: NewCase
) -> None:
    case = new_case(new_coding(), 1)
    nameless = new_case(new_coding(), 1, study_instance_uid="", patient_key=PatientKey(""))
    assert not excluded(nameless, Exclude())
    assert not excluded(case, Exclude("9.9", "9.9", PatientKey("f" * 64)))
    assert excluded(case, Exclude(sop_instance_uid=case.sop_instance_uid))
    assert excluded(case, Exclude(study_instance_uid=case.study_instance_uid))
    assert excluded(case, Exclude(patient_key=case.patient_key))


def test_the_smallest_content_hash_stands(new_coding: NewCoding, new_case: NewCase) -> None:
    coding = new_coding()
    small = new_case(coding, 1, content_sha256="0" * 64)
    large = new_case(coding, 1, content_sha256="f" * 64)
    assert resolve(large, small) == (small, Outcome.PIXEL_CONFLICT)
    assert resolve(small, large) == (small, Outcome.PIXEL_CONFLICT)


def test_the_smallest_metadata_hash_stands(new_coding: NewCoding, new_case: NewCase) -> None:
    coding = new_coding()
    one, other = new_case(coding, 1, label="one"), new_case(coding, 1, label="other")
    standing = min(one, other, key=metadata_sha256)
    assert resolve(one, other) == (standing, Outcome.METADATA_CONFLICT)
    assert resolve(other, one) == (standing, Outcome.METADATA_CONFLICT)


def test_a_case_that_arrives_again_changes_nothing(
    new_coding: NewCoding, new_case: NewCase
) -> None:
    case = new_case(new_coding(), 1)
    later = new_case(new_coding(), 1, id=case.id, ingest_time=case.ingest_time + 1)
    assert merge({case.id: case}, [case, later]) == ({}, [Outcome.UNCHANGED, Outcome.UNCHANGED])


def test_conflicts_end_with_the_same_row_in_every_order_of_arrival(
    new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    variants = [
        new_case(coding, 1, content_sha256="a" * 64, label="one"),
        new_case(coding, 1, content_sha256="a" * 64, label="other"),
        new_case(coding, 1, content_sha256="a" * 64, label="other", ingest_time=7),
        new_case(coding, 1, content_sha256="a" * 64, label="other", code=HashCode(bytes(8))),
        new_case(coding, 1, content_sha256="b" * 64, label="one"),
    ]
    stored: set[Case] = set()
    for arrival in itertools.permutations(variants):
        one_by_one: dict[CaseId, Case] = {}
        for case in arrival:
            one_by_one |= merge(one_by_one, [case])[0]
        at_once, outcomes = merge({}, arrival)
        assert one_by_one == at_once
        assert outcomes[0] is Outcome.ADDED
        stored |= set(at_once.values())
    assert len(stored) == 1


def test_ties_are_truncated_only_when_a_list_could_not_hold_them(
    new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding(bits=16)
    cases = [new_case(coding, number, code=ZERO) for number in range(5)]
    soon = Deadline.after(5)
    query = Query(ZERO, 2)
    assert ExactIndex(coding, cases, max_candidates=5).search(query, soon).ties_truncated
    assert not ExactIndex(coding, cases, max_candidates=6).search(query, soon).ties_truncated
