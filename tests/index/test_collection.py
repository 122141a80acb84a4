"""How a coding lies in Milvus: names, descriptions, rows and expressions."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from dafh.codes import BITS, HashCode
from dafh.errors import Internal
from dafh.imaging.image import PatientKey
from dafh.index.case import Case, CaseId, Coding
from dafh.index.collection import (
    archive_prefix,
    case_of,
    code_word,
    collection_name,
    describe,
    expression,
    packed_codes,
    read_description,
    row_of,
)
from dafh.index.filters.parse import parse
from dafh.index.port import Exclude

NewCoding = Callable[..., Coding]
NewCase = Callable[..., Case]


def test_names_differ_by_everything_that_must_not_mix(new_coding: NewCoding) -> None:
    coding = new_coding()
    others = [
        replace(coding, tenant="other"),
        replace(coding, archive="other"),
        replace(coding, model_hash="cd" * 32),
        replace(coding, bits=16),
    ]
    assert len({collection_name(one) for one in [coding, *others]}) == 5
    # The same model under another number, or another key, is the same collection.
    assert collection_name(replace(coding, model_version=2, key_id="k")) == collection_name(coding)
    assert collection_name(coding).startswith(archive_prefix(coding.tenant, coding.archive))
    assert archive_prefix("a", "bc") != archive_prefix("ab", "c")


def test_a_description_is_read_back(new_coding: NewCoding) -> None:
    coding = new_coding(bits=32, model_version=3)
    assert read_description(describe(coding)) == coding


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"layout": 2}', '{"layout": 1}'])
def test_a_description_of_another_layout_is_refused(text: str) -> None:
    with pytest.raises(Internal):
        read_description(text)


@pytest.mark.parametrize("bits", BITS)
def test_a_code_survives_as_a_word(bits: int) -> None:
    codes = [HashCode(bytes([first] * (bits // 8))) for first in (0, 1, 0x7F, 0x80, 0xFF)]
    packed = packed_codes([code_word(code) for code in codes], bits)
    assert [row.tobytes() for row in packed] == [code.packed for code in codes]
    assert packed_codes([], bits).shape == (0, bits // 8)


def test_a_row_is_read_back_as_its_case(new_coding: NewCoding, new_case: NewCase) -> None:
    coding = new_coding(bits=48)
    case = new_case(coding, 3, label='quote " backslash \\')
    row = row_of(case, coding)
    assert (row["tenant"], row["key_id"]) == (coding.tenant, coding.key_id)
    assert case_of(row, 48) == case


def test_every_expression_names_the_tenant_first(new_coding: NewCoding) -> None:
    coding = new_coding(tenant="t-1")
    exclude = Exclude("1.2", "", PatientKey("ab"))
    assert expression(coding) == 'tenant == "t-1"'
    assert expression(coding, exclude=exclude, ids=[CaseId("0a")], after="") == (
        'tenant == "t-1" and sop_instance_uid != "1.2" and patient_key != "ab"'
        ' and id in ["0a"] and id > ""'
    )


def test_text_that_was_not_validated_stays_one_literal(new_coding: NewCoding) -> None:
    tenant = 't" or tenant != "'
    assert expression(replace(new_coding(), tenant=tenant)) == r'tenant == "t\" or tenant != \""'
    assert (
        expression(new_coding(tenant="t"), ids=[CaseId("\\")]) == r'tenant == "t" and id in ["\\"]'
    )


@pytest.mark.parametrize("text", ["a\n", "\0", "\x9f", "\udc80"])
def test_text_that_nothing_stores_is_kept_out_of_expressions(
    new_coding: NewCoding, text: str
) -> None:
    with pytest.raises(Internal):
        expression(replace(new_coding(), tenant=text))
    with pytest.raises(Internal):
        expression(new_coding(), ids=[CaseId(text)])


def test_the_filter_comes_last_in_brackets_of_its_own(new_coding: NewCoding) -> None:
    anything = parse('label = "x" OR frame = 2')
    assert expression(new_coding(tenant="t"), ids=[CaseId("0a")], filter=anything) == (
        'tenant == "t" and id in ["0a"] and (label == "x" or frame == 2)'
    )


def test_no_file_of_settings_is_read_when_pymilvus_is_imported() -> None:
    program = (
        "import dotenv\n"
        "def load(*a, **k): raise SystemExit('a .env file was read')\n"
        "dotenv.load_dotenv = load\n"
        "import dafh.index.connection\n"
        "assert dotenv.load_dotenv is load\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
