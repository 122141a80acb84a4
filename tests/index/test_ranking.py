"""Order, ties and conflicts: what every adapter relies on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.imaging.image import PatientKey
from dafh.index.case import Case, CaseId, Coding
from dafh.index.exact import ExactIndex
from dafh.index.filters.parse import parse
from dafh.index.port import Exclude, Outcome, Position, Query
from dafh.index.ranking import Candidates, Placed, excluded, merge, rank, reach, resolve
from dafh.index.schema import metadata_sha256

NewCoding = Callable[..., Coding]
NewCase = Callable[..., Case]

ZERO = HashCode(b"\0\0")
#: Surer of its first bit than of the others.
OUTPUT = np.array([-0.9] + [-0.1] * 15, np.float32)


def packed(*codes: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(codes), np.uint8).reshape(-1, 2)


def candidates(ids: str, *codes: bytes) -> Candidates:
    return Candidates(np.array(list(ids), np.str_), packed(*codes))


def order(query: Query, ids: str, *codes: bytes) -> str:
    return "".join(ids[place.row] for place in rank(query, candidates(ids, *codes)))


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


def test_a_page_goes_on_after_more_ties_than_it_has_places() -> None:
    codes = (b"\0\0",) * 5 + (b"\0\x01",) * 2
    after = Position(0, 0.0, CaseId("e"))
    assert order(Query(ZERO, 2, after=after), "abcdefg", *codes) == "fg"


def test_an_answer_that_is_not_full_reaches_as_far_as_the_query() -> None:
    one = [Placed(0, 1, 0.1)]
    assert reach(Query(ZERO, 1), one) == 1
    assert reach(Query(ZERO, 2), one) == 16
    assert reach(Query(ZERO, 2, max_distance=3), one) == 3


def test_the_score_is_the_share_of_bits_without_a_hash_output() -> None:
    (place,) = rank(Query(ZERO, 1), candidates("a", b"\0\x0f"))
    assert (place.distance, place.score) == (4, 0.25)


def test_nothing_is_ranked_in_an_empty_archive() -> None:
    assert rank(Query(ZERO, 3, OUTPUT), candidates("")) == []


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


@dataclass(frozen=True)
class Known:
    """A case, written small; "" is unknown."""

    code: int
    patient: str
    series: str
    label: str


def naive(query: Query, cases: list[Case]) -> list[tuple[int, float, CaseId]]:
    """The answer, by the words of `Query` and nothing clever."""
    ranked = []
    for case in cases:
        bits = [int(a) ^ int(b) for a, b in zip(binary(query.code), binary(case.code), strict=True)]
        score = sum(bits) / len(bits)
        if query.hash_output is not None:
            signs = [2 * int(bit) - 1 for bit in binary(case.code)]
            pairs = zip(signs, query.hash_output.tolist(), strict=True)
            score = round((1 - sum(sign * value for sign, value in pairs) / len(signs)) / 2, 9)
        if query.max_distance is None or sum(bits) <= query.max_distance:
            ranked.append(((sum(bits), score, case.id), case))
    patients: list[str] = []
    series: list[str] = []
    kept = []
    for place, case in sorted(ranked, key=lambda one: one[0]):
        most = query.max_hits_per_patient
        if most is not None and case.patient_key and patients.count(case.patient_key) >= most:
            continue
        most = query.max_hits_per_series
        if (
            most is not None
            and case.series_instance_uid
            and series.count(case.series_instance_uid) >= most
        ):
            continue
        patients.append(case.patient_key)
        series.append(case.series_instance_uid)
        if query.after is None or place > query.after:
            kept.append(place)
    return kept[: query.top_k]


def binary(code: HashCode) -> str:
    return f"{int(code.hex(), 16):0{code.bits}b}"


known = st.builds(
    Known,
    code=st.sampled_from([0, 1, 2, 3, 0x8000, 0xFFFF]),
    patient=st.sampled_from(["", "a", "b"]),
    series=st.sampled_from(["", "1.1", "1.2", "1.3"]),
    label=st.sampled_from(["", "x"]),
)
caps = st.none() | st.integers(1, 3)
outputs = st.none() | st.lists(st.sampled_from([-1.0, -0.25, 0.5]), min_size=16, max_size=16).map(
    lambda values: np.array(values, np.float32)
)
queries = st.builds(
    Query,
    code=st.sampled_from([ZERO, HashCode(b"\0\x03")]),
    top_k=st.integers(1, 8),
    hash_output=outputs,
    max_distance=st.none() | st.integers(0, 3),
    filter=st.none() | st.just(parse('label = "x"')),
    max_hits_per_patient=caps,
    max_hits_per_series=caps,
)


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(known, max_size=30), query=queries, after=st.none() | st.integers(0, 29))
def test_an_answer_is_what_the_words_say(
    new_coding: NewCoding,
    new_case: NewCase,
    rows: list[Known],
    query: Query,
    after: int | None,
) -> None:
    coding = new_coding(bits=16, archive="fixed")
    cases = [stored(new_case, coding, number, row) for number, row in enumerate(rows)]
    soon = Deadline.after(60)
    everything = ExactIndex(coding, cases).search(
        replace(query, top_k=1000, max_hits_per_patient=None, max_hits_per_series=None), soon
    )
    if after is not None and after < len(everything.hits):
        # Also after a place whose own case the limits leave out.
        query = replace(query, after=everything.hits[after].position)
    found = ExactIndex(coding, cases).search(query, soon)
    selected = [case for case in cases if query.filter is None or case.label == "x"]
    assert [hit.position for hit in found.hits] == naive(query, selected)
    assert found.end == (found.hits[-1].position if found.hits else None)


def stored(new_case: NewCase, coding: Coding, number: int, row: Known) -> Case:
    return new_case(
        coding,
        number,
        code=HashCode(row.code.to_bytes(2, "big")),
        patient_key=PatientKey(row.patient and row.patient * 64),
        series_instance_uid=row.series,
        label=row.label,
    )


def test_cases_of_unknown_patients_and_series_are_never_counted_together(
    new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding(bits=16)
    unknown = Known(0, "", "", "")
    cases = [stored(new_case, coding, number, unknown) for number in range(4)]
    query = Query(ZERO, 9, max_hits_per_patient=1, max_hits_per_series=1)
    assert len(ExactIndex(coding, cases).search(query, Deadline.after(5)).hits) == 4


def test_a_hit_that_one_limit_leaves_out_does_not_count_for_the_other(
    new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding(bits=16)
    rows = [Known(0, "a", "1.1", ""), Known(1, "a", "1.2", ""), Known(3, "b", "1.2", "")]
    cases = [stored(new_case, coding, number, row) for number, row in enumerate(rows)]
    query = Query(ZERO, 9, max_hits_per_patient=1, max_hits_per_series=1)
    found = ExactIndex(coding, cases).search(query, Deadline.after(5))
    assert [hit.case for hit in found.hits] == [cases[0], cases[2]]


def test_ties_are_truncated_only_when_a_list_could_not_hold_them(
    new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding(bits=16)
    cases = [new_case(coding, number, code=ZERO) for number in range(5)]
    soon = Deadline.after(5)
    query = Query(ZERO, 2)
    assert ExactIndex(coding, cases, max_candidates=5).search(query, soon).ties_truncated
    assert not ExactIndex(coding, cases, max_candidates=6).search(query, soon).ties_truncated


def test_what_a_limit_or_a_page_hides_still_fills_the_list(
    new_coding: NewCoding, new_case: NewCase
) -> None:
    coding, soon = new_coding(bits=16), Deadline.after(5)
    # Five cases of one patient, nearer than one of another.
    cases = [new_case(coding, number, code=ZERO) for number in range(5)]
    cases.append(new_case(coding, 5, code=HashCode(b"\0\1"), patient_key=PatientKey("")))
    capped = Query(ZERO, 2, max_hits_per_patient=1)
    (first, *_) = ExactIndex(coding, cases).search(capped, soon).hits
    for query in (capped, Query(ZERO, 5, after=first.position)):
        assert ExactIndex(coding, cases, max_candidates=5).search(query, soon).ties_truncated
        assert not ExactIndex(coding, cases, max_candidates=7).search(query, soon).ties_truncated
    none_left_out = Query(ZERO, 5)
    assert (
        not ExactIndex(coding, cases, max_candidates=6).search(none_left_out, soon).ties_truncated
    )
