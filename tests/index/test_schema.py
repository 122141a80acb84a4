"""Nothing reaches an index that was not checked; the checks name the field and hide the value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.errors import InvalidInput, Reason
from dafh.imaging.image import PatientKey
from dafh.index.case import Case, CaseId, Coding
from dafh.index.checks import check_cases, check_coding
from dafh.index.exact import ExactIndex
from dafh.index.manifest import COLUMNS
from dafh.index.port import Exclude, Query
from dafh.index.schema import FIELDS, Kind, Source, metadata_sha256

NewCoding = Callable[..., Coding]
NewCase = Callable[..., Case]

PAGE = Path(__file__).parents[2] / "docs" / "index-schema.md"


def test_the_table_has_every_field_of_a_case() -> None:
    stored = {
        field.name
        for field in FIELDS
        if field.source is Source.CASE and field.kind is not Kind.CODE_WORD
    }
    assert stored == {field.name for field in fields(Case)}


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("code", HashCode(b"\0\0"), Reason.CODE_LENGTH_MISMATCH),
        ("id", CaseId("0" * 32), Reason.ARGUMENT_INVALID),
        ("id", CaseId("secret"), Reason.ARGUMENT_INVALID),
        ("sop_instance_uid", "", Reason.UID_INVALID),
        ("sop_instance_uid", "1.2.secret", Reason.UID_INVALID),
        ("study_instance_uid", "1.2.", Reason.UID_INVALID),
        ("study_instance_uid", ".2", Reason.UID_INVALID),
        ("study_instance_uid", "1.2\n", Reason.UID_INVALID),
        ("series_instance_uid", "1." + "2" * 63, Reason.UID_INVALID),
        ("series_instance_uid", "1..2", Reason.UID_INVALID),
        ("frame", 0, Reason.ARGUMENT_INVALID),
        ("frame", 2**63, Reason.ARGUMENT_INVALID),
        ("frame", "secret", Reason.ARGUMENT_INVALID),
        ("ingest_time", -1, Reason.ARGUMENT_INVALID),
        ("content_sha256", "A" * 64, Reason.ARGUMENT_INVALID),
        ("content_sha256", "", Reason.ARGUMENT_INVALID),
        ("patient_key", PatientKey("secret"), Reason.ARGUMENT_INVALID),
        ("modality", "s" * 17, Reason.ARGUMENT_INVALID),
        ("body_part", None, Reason.ARGUMENT_INVALID),
        ("label", "漢" * 86, Reason.ARGUMENT_INVALID),
        ("label", "secret\0", Reason.ARGUMENT_INVALID),
        ("cancer_type", "secret\udc80", Reason.ARGUMENT_INVALID),
    ],
)
def test_a_wrong_field_is_named_and_its_value_is_not(
    new_coding: NewCoding, new_case: NewCase, field: str, value: object, reason: Reason
) -> None:
    coding = new_coding()
    changes = {"frame": 1} | {field: value}
    if field == "frame":
        changes = {}
    case = new_case(coding, 2, **changes)
    if field == "frame":
        object.__setattr__(case, "frame", value)
    with pytest.raises(InvalidInput) as refusal:
        check_cases(coding, [new_case(coding, 1), case])
    assert (refusal.value.subject, refusal.value.reason) == (field, reason)
    assert "Case 2 of 2" in refusal.value.message
    assert "secret" not in str(refusal.value)


def test_unknown_text_is_no_fault(new_coding: NewCoding, new_case: NewCase) -> None:
    coding = new_coding()
    unknown = dict.fromkeys(
        ("study_instance_uid", "series_instance_uid", "modality", "body_part"), ""
    )
    check_cases(coding, [new_case(coding, 1, patient_key=PatientKey(""), **unknown)])


def test_nothing_of_a_batch_is_stored_if_one_case_is_wrong(
    new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    index = ExactIndex(coding)
    with pytest.raises(InvalidInput):
        index.upsert([new_case(coding, 1), new_case(coding, 2, label="\0")], Deadline.after(5))
    assert index.count(Deadline.after(5)) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"tenant": ""},
        {"tenant": 'a" or "'},
        {"archive": "a b"},
        {"archive": "a" * 65},
        {"model_hash": "xyz"},
        {"key_id": ""},
        {"bits": 24},
    ],
)
def test_a_coding_that_no_collection_can_hold_is_refused(
    new_coding: NewCoding, changes: dict[str, object]
) -> None:
    with pytest.raises(InvalidInput) as refusal:
        check_coding(new_coding(**changes))
    assert refusal.value.subject in changes


@pytest.mark.parametrize(
    ("query", "subject"),
    [
        (Query(HashCode(b"\0" * 4), 1), "code"),
        (Query(HashCode(b"\0" * 8), 0), "top_k"),
        (Query(HashCode(b"\0" * 8), 1001), "top_k"),
        (Query(HashCode(b"\0" * 8), 1, max_distance=-1), "max_distance"),
        (Query(HashCode(b"\0" * 8), 1, np.zeros(32, np.float32)), "hash_output"),
        (Query(HashCode(b"\0" * 8), 1, np.full(64, np.nan, np.float32)), "hash_output"),
        (Query(HashCode(b"\0" * 8), 1, np.full(64, 2, np.float32)), "hash_output"),
        (Query(HashCode(b"\0" * 8), 1, exclude=Exclude("1.2 ")), "sop_instance_uid"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(
    new_coding: NewCoding, query: Query, subject: str
) -> None:
    with pytest.raises(InvalidInput) as refusal:
        ExactIndex(new_coding()).search(query, Deadline.after(5))
    assert refusal.value.subject == subject


def test_the_metadata_hash_leaves_out_code_and_ingest_time_only(
    new_coding: NewCoding, new_case: NewCase
) -> None:
    case = new_case(new_coding(), 1)
    same = new_case(new_coding(), 1, id=case.id, ingest_time=1, code=HashCode(bytes(8)))
    assert metadata_sha256(case) == metadata_sha256(same)
    for name in ("label", "series_instance_uid", "frame", "patient_key", "content_sha256"):
        other = new_case(new_coding(), 1, id=case.id)
        object.__setattr__(other, name, 7 if name == "frame" else "7")
        assert metadata_sha256(case) != metadata_sha256(other)


def test_the_page_on_the_schema_is_the_table() -> None:
    kinds = {
        Kind.INTEGER: "INT64",
        Kind.CODE: "BINARY_VECTOR(bits)",
        Kind.CODE_WORD: "INT64",
    }
    lines = ["| field | Milvus type | required | in dumps | meaning |", "|---|---|---|---|---|"]
    for field in FIELDS:
        kind = kinds.get(field.kind, f"VARCHAR({field.max_bytes})")
        dumped = "yes" if field.name in COLUMNS else "no"
        required = "yes" if field.required else "no"
        shared = " Only in collections that archives share." if field.shared_only else ""
        lines.append(f"| `{field.name}` | {kind} | {required} | {dumped} | {field.about}{shared} |")
    table = "\n".join(lines)
    assert table in PAGE.read_text(), f"{PAGE.name} must hold:\n{table}"
