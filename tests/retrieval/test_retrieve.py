from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.encoding.calibration import Calibration, RelevanceCurve
from dafh.encoding.port import ModelVersion
from dafh.encoding.scripted import SIDE, ScriptedEncoder
from dafh.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    Reason,
    Unavailable,
)
from dafh.imaging.image import Image, Metadata, PatientKey
from dafh.index.case import CaseId, Coding
from dafh.index.exact import ExactIndex
from dafh.index.filters.parse import parse
from dafh.index.port import Found, Hit, Outcome, Query
from dafh.ingest.ingest import Ingester, Item
from dafh.retrieval.retrieve import Options, Retriever

SOON = Deadline.never()


def coding(model_hash: str = "0" * 64) -> Coding:
    return Coding(
        tenant="default", archive="default", model_hash=model_hash, model_version=1, bits=64,
        key_id="0" * 16,
    )  # fmt: skip


def image(number: int, patient: int = 0) -> Image:
    pixels = np.random.default_rng(number).integers(0, 256, (1, SIDE, SIDE), dtype=np.uint8)
    key = PatientKey(f"{patient:064x}" if patient else "")
    metadata = Metadata(
        f"1.2.{number + 1}", f"1.3.{patient or 1000 + number}", "1.4", patient_key=key
    )
    return Image(pixels, 1, f"{number:064x}", metadata)


@pytest.fixture
def index() -> ExactIndex:
    filled = ExactIndex(coding())
    items = [Item(image(number, patient=1 + number // 2)) for number in range(20)]
    Ingester.alone(ScriptedEncoder(), filled).ingest(items, SOON)
    return filled


def ask(
    index: ExactIndex, query: Image, top_k: int = 10, *, include_same_patient: bool = False
) -> list[str]:
    retriever = Retriever(ScriptedEncoder(), index)
    options = Options(top_k=top_k, include_same_patient=include_same_patient)
    answer = retriever.by_image(lambda _: query, options, SOON)
    return [hit.case.sop_instance_uid for hit in answer.found.hits]


def test_the_query_itself_answers_only_when_asked_to(index: ExactIndex) -> None:
    query = image(4, patient=3)
    assert ask(index, query, include_same_patient=True)[0] == "1.2.5"
    unasked = ask(index, query, top_k=20)
    assert len(unasked) == 18
    assert {"1.2.5", "1.2.6"}.isdisjoint(unasked)


def test_filter_limits_and_place_reach_the_index(index: ExactIndex) -> None:
    retriever = Retriever(ScriptedEncoder(), index)

    def answer(options: Options) -> list[Hit]:
        return list(retriever.by_image(lambda _: image(99), options, SOON).found.hits)

    everything = answer(Options(20))
    assert answer(Options(20, after=everything[4].position)) == everything[5:]
    assert answer(Options(20, filter=parse("frame != 1"))) == []
    one_each = answer(Options(20, max_hits_per_patient=1))
    assert len({hit.case.patient_key for hit in one_each}) == len(one_each) == 10
    assert answer(Options(20, max_hits_per_series=3)) == everything[:3]


class Calibrated(ScriptedEncoder):
    """States probabilities, which other hits of the same label raise."""

    @property
    def model(self) -> ModelVersion:
        curve = RelevanceCurve(intercept=1.0, distance=-2.0, score=-1.0, agreement=3.0)
        return super().model.model_copy(update={"calibration": Calibration(relevance={64: curve})})


def test_how_an_answer_is_cut_changes_no_probability() -> None:
    index = ExactIndex(coding())
    items = [Item(image(number), label="aab"[number % 3]) for number in range(40)]
    Ingester.alone(ScriptedEncoder(), index).ingest(items, SOON)
    retriever = Retriever(Calibrated(), index)

    def stated(options: Options) -> list[tuple[Hit, float | None]]:
        answer = retriever.by_image(lambda _: image(99), options, SOON)
        return list(zip(answer.found.hits, answer.probabilities, strict=True))

    whole = stated(Options(40))
    assert len({probability for _, probability in whole}) > 10
    assert stated(Options(3)) == whole[:3]
    assert stated(Options(25)) == whole[:25]
    for place in (0, 3, 8, 9, 30):
        after = whole[place][0].position
        assert stated(Options(5, after=after)) == whole[place + 1 : place + 6]
        border = whole[place][0].distance
        near = [one for one in whole if one[0].distance <= border]
        assert stated(Options(40, max_distance=border)) == near
        assert stated(Options(2, max_distance=border)) == near[:2]
    # Who may answer at all is another thing: they vouch for each other.
    few = stated(Options(40, filter=parse('label = "b"')))
    assert {hit.case.label for hit, _ in few} == {"b"}
    assert few[0][1] != dict(whole)[few[0][0]]


class Crowded(ExactIndex):
    """More cases than can be put in order lie where the fourth hit does."""

    def search(self, query: Query, deadline: Deadline) -> Found:
        return replace(super().search(query, deadline), ties_truncated=query.top_k > 3)


def test_ties_beyond_the_answer_are_not_its_own() -> None:
    index = Crowded(coding())
    items = [Item(image(number)) for number in range(20)]
    Ingester.alone(ScriptedEncoder(), index).ingest(items, SOON)
    retriever = Retriever(ScriptedEncoder(), index)
    for top_k in (3, 4):
        answer = retriever.by_image(lambda _: image(99), Options(top_k), SOON)
        assert len(answer.found.hits) == top_k
        assert answer.found.ties_truncated == (top_k > 3)


def test_an_unknown_patient_excludes_instance_and_study_only(index: ExactIndex) -> None:
    nameless = image(4, patient=0)
    assert len(ask(index, nameless, top_k=20)) == 19


def test_a_code_of_another_model_never_meets_the_archive() -> None:
    other = ExactIndex(coding("1" * 64))
    with pytest.raises(FailedPrecondition) as caught:
        Ingester.alone(ScriptedEncoder(), other)
    assert caught.value.reason is Reason.MODEL_NOT_LOADED
    retriever = Retriever(ScriptedEncoder(), other)
    with pytest.raises(FailedPrecondition):
        retriever.by_code(HashCode(bytes(8)), None, Options(), SOON)


def test_a_failed_encoder_leaves_no_row(index: ExactIndex) -> None:
    fault = Unavailable(Reason.ENCODER_UNAVAILABLE, "gone")
    before = index.count(SOON)
    ingester = Ingester.alone(ScriptedEncoder([fault]), index)
    with pytest.raises(Unavailable):
        ingester.ingest([Item(image(99))], SOON)
    assert index.count(SOON) == before
    assert ingester.ingest([Item(image(99))], SOON)[0].outcome is Outcome.ADDED


def test_an_expired_deadline_stops_before_decoding(index: ExactIndex) -> None:
    def decode(_: ModelVersion) -> Image:
        raise AssertionError("must not be reached")

    with pytest.raises(DeadlineExceeded):
        Retriever(ScriptedEncoder(), index).by_image(decode, Options(), Deadline.after(-1))


@pytest.mark.parametrize("top_k", [0, 1001, -1])
def test_a_length_out_of_range_names_the_field(top_k: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        Options(top_k=top_k)
    assert caught.value.subject == "top_k"


def test_a_negative_distance_names_the_field() -> None:
    with pytest.raises(InvalidInput) as caught:
        Options(max_distance=-1)
    assert caught.value.subject == "max_distance"


def test_an_unknown_case_is_not_found(index: ExactIndex) -> None:
    with pytest.raises(NotFound):
        Retriever(ScriptedEncoder(), index).by_case(CaseId("f" * 32), Options(), SOON)
