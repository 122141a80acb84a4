"""The filter language: what is read, what it means, and what is refused where."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dafh.errors import Internal, InvalidInput, Reason
from dafh.index.case import Case, Coding
from dafh.index.checks import check_filter
from dafh.index.filters.milvus import literal, written
from dafh.index.filters.parse import FILTERABLE, MAX_LENGTH, parse
from dafh.index.filters.tree import (
    MAX_DEPTH,
    MAX_VALUES,
    Comparison,
    Filter,
    Group,
    Junction,
    Operator,
    depth,
    joined,
    matches,
    negated,
)
from dafh.index.schema import BY_NAME
from tests.index.trees import ANYTHING, HOSTILE, filters, spelled

NewCoding = Callable[..., Coding]
NewCase = Callable[..., Case]

LANGUAGE = Path(__file__).parents[2] / "docs" / "filters.md"

trees = filters(ANYTHING)


def said(text: str) -> str:
    """The expression that a text becomes."""
    tree = parse(text)
    return "" if tree is None else written(tree)


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("", ""),
        (" \r\n\t", ""),
        ('modality = "CT"', 'modality == "CT"'),
        ("modality=CT", 'modality == "CT"'),
        ("modality = 'CT'", 'modality == "CT"'),
        ("modality : CT", 'modality == "CT"'),
        ("modality:*", 'modality != ""'),
        ('modality = "*"', 'modality == "*"'),
        ("NOT modality:*", 'modality == ""'),
        ("frame:*", "frame >= 1"),
        ("-modality = CT", 'modality != "CT"'),
        ("NOT frame < 3", "frame >= 3"),
        ("NOT frame <= 3", "frame > 3"),
        ("-(frame > 3)", "frame <= 3"),
        ("-(-(frame >= 3))", "frame >= 3"),
        ("modality = (CT OR MR)", 'modality in ["CT", "MR"]'),
        ("modality : (CT OR 'MR' OR CT)", 'modality in ["CT", "MR"]'),
        ("modality != (CT OR MR)", 'modality not in ["CT", "MR"]'),
        ("NOT modality != (CT OR MR)", 'modality in ["CT", "MR"]'),
        ("modality = (CT)", 'modality == "CT"'),
        ("frame = (1 OR 2)", "frame in [1, 2]"),
        ("create_time >= 1970-01-01T00:00:01Z", "ingest_time >= 1000000"),
        ('create_time >= "1970-01-01T02:00:00.000001+02:00"', "ingest_time >= 1"),
        ("create_time < '1969-12-31T23:59:59.5Z'", "ingest_time < -500000"),
        (r'label = "a\"b"', r'label == "a\"b"'),
        (r"label = 'a\'b\\'", r'''label == "a'b\\"'''),
        (r"""label = 'a"b'""", r'label == "a\"b"'),
        ("sop_instance_uid = 1.2.3", 'sop_instance_uid == "1.2.3"'),
        ("label = and", 'label == "and"'),
        ("label = ANDROID", 'label == "ANDROID"'),
        # OR binds tighter than a gap and AND; both mean that all must hold.
        (
            "modality = CT OR modality = MR frame = 1 AND label = a OR label = b",
            '((modality == "CT" or modality == "MR") and'
            ' (frame == 1 and (label == "a" or label == "b")))',
        ),
        ("NOT frame = 1 OR frame = 2", "(frame != 1 or frame == 2)"),
        ("NOT (frame = 1 OR frame = 2)", "(frame != 1 and frame != 2)"),
        (
            "((frame = 1) ((frame = 2 AND frame = 3)))",
            "(frame == 1 and (frame == 2 and frame == 3))",
        ),
    ],
)
def test_each_form_means_what_the_language_says(text: str, expression: str) -> None:
    assert said(text) == expression


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("label", 6, "one of = != < <= > >= :"),
        ("label =", 8, "a value"),
        ("label = = a", 9, "a value"),
        ("label = (a OR )", 15, "a value"),
        ("label = (a b)", 12, "OR or ')'"),
        ("(label = a", 11, "')'"),
        ("label = a)", 10, "the end"),
        ("()", 2, "a field"),
        ("AND", 1, "a field"),
        ("label = a AND", 14, "a field"),
        ("label = AND", 9, "a value"),
        ("NOT NOT label = a", 5, "a field"),
        ('"a"', 1, "a field"),
        ("label = a and frame = 1", 15, "one of = != < <= > >= :"),
        ('label = "a', 9, "the quote to be closed"),
        ("label = 'a\"", 9, "the quote to be closed"),
        (r'label = "a\n"', 12, "a quote or another backslash"),
        ("label = naïve", 11, "quotes around"),
        ("label \uff1d a", 7, "quotes around"),
        ("label = \uff02a\uff02", 9, "quotes around"),
        ("label\u00a0= a", 6, "quotes around"),
        ("label = a\x00", 10, "quotes around"),
        ("label = a; label = b", 10, "quotes around"),
        ("label == a", 8, "a value"),
        ("label = [a, b]", 9, "quotes around"),
        ("label <> a", 8, "a value"),
        ("label = *", 7, "':' before *"),
        ("label < (a OR b)", 7, "=, != or : before a list"),
        ("label = a OR tenant = b", 14, "one of the fields sop_instance_uid"),
        ("frame = '1'", 9, "a whole number"),
        ("frame = 1.5", 9, "a whole number"),
        ("frame = -1", 9, "a value"),
        ("frame = (1 OR x)", 15, "a whole number"),
        ("frame = " + "9" * 30, 9, "a whole number"),
        ("create_time > 5", 15, "a time such as"),
        ("create_time > 2026-11-24", 15, "a time such as"),
        ("create_time > 2026-11-24T08:30:00", 15, "a time such as"),
        ("create_time > '2026-11-24T08:30:00'", 15, "a time such as"),
        ("create_time > 2026-02-30T00:00:00Z", 15, "a time such as"),
        ("create_time > 2026-11-24T08:30:60Z", 15, "a time such as"),
        ("create_time > 2026-11-24T08:30:00.1234567Z", 15, "a time such as"),
    ],
)
def test_a_refusal_says_where_and_what_was_expected(text: str, column: int, expected: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse(text)
    assert (refusal.value.reason, refusal.value.subject) == (Reason.ARGUMENT_INVALID, "filter")
    assert refusal.value.message.startswith(f"filter, column {column}: expected {expected}")
    assert refusal.value.remedy


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('label = "' + "x" * 257 + '"', "column 9: label has 257 characters; at most 256"),
        ('label = "' + "漢" * 86 + '"', "column 9: label has 258 bytes of UTF-8; at most 256"),
        ('modality = (CT OR "' + "x" * 17 + '")', "column 19: modality has 17"),
        ('label = "\x7f"', "column 9: label is not text without control characters"),
        ('label = "\n"', "column 9: label is not text without control characters"),
        ('label = "\ud800"', "column 9: label cannot be written as UTF-8"),
        ("study_instance_uid = 1..2", "column 22: study_instance_uid is not a UID"),
        ("frame = 9999999999999999999", "column 9: frame is no integer"),
        ("x" * (MAX_LENGTH + 1), f"filter has {MAX_LENGTH + 1} characters; at most {MAX_LENGTH}"),
        ("frame = 1 " * (MAX_VALUES + 1), f"filter has {MAX_VALUES + 1} values; at most"),
        (f"frame = ({' OR '.join(map(str, range(501)))})", "filter has 501 values; at most"),
        ("(frame = 1 OR (frame = 2 " * 20 + "))" * 20, "filter nests more than 32 levels deep"),
        ("-(frame = 1 " * 40 + "frame = 1" + ")" * 40, "filter nests more than 32 levels deep"),
    ],
)
def test_what_is_too_much_or_impossible_is_refused(text: str, fault: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse(text)
    assert fault in refusal.value.message
    assert (refusal.value.reason, refusal.value.subject) == (Reason.ARGUMENT_INVALID, "filter")


@pytest.mark.parametrize(
    "opening", ["(", "-(", "NOT (", "-", "label = (", "((frame=1 OR ", "'", "\\"]
)
@pytest.mark.parametrize("count", [100, MAX_LENGTH // 13, 100_000])
def test_no_nesting_breaks_the_parser(opening: str, count: int) -> None:
    with pytest.raises(InvalidInput):
        parse(opening * count)


def test_brackets_alone_do_not_nest() -> None:
    assert said("(" * 8000 + "frame = 1" + ")" * 8000) == "frame == 1"


def test_as_many_values_as_a_filter_may_have_do_not_nest_too_deeply() -> None:
    tree = parse("frame = 1 OR " * (MAX_VALUES - 1) + "frame = 1")
    assert tree is not None
    assert depth(tree) == 9
    steps = [{"(": 1, ")": -1}.get(character, 0) for character in written(tree)]
    assert max(itertools.accumulate(steps)) == 9


@pytest.mark.parametrize(
    "text",
    [
        "DOE = 1",
        "label = DOE DOE",
        'label = "DOE\\J"',
        'label = "DOE',
        "label = DOE;",
        "frame = DOE",
        "create_time = DOE",
        "study_instance_uid = DOE",
        'label = "DOE\x00"',
        f'label = "{"DOE" * 100}"',
    ],
)
def test_no_message_repeats_the_text(text: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse(text)
    assert "DOE" not in f"{refusal.value} {refusal.value.subject}"


def test_only_public_fields_can_be_asked_for() -> None:
    assert set(FILTERABLE) == {
        *("sop_instance_uid", "study_instance_uid", "series_instance_uid", "frame", "modality"),
        *("body_part", "label", "cancer_type", "create_time"),
    }
    for name in ("tenant", "archive", "patient_key", "key_id", "content_sha256", "id", "code"):
        with pytest.raises(InvalidInput):
            parse(f"{name} = 1")
        secret = Comparison(name, Operator.UNEQUAL, ("",))
        with pytest.raises(InvalidInput):
            check_filter(Group(Junction.ANY, (secret, secret)))
        if name in BY_NAME:
            with pytest.raises(Internal):
                written(secret)


@pytest.mark.parametrize(
    "tree",
    [
        Comparison("label", Operator.EQUAL, (7,)),
        Comparison("label", Operator.EQUAL, (0,)),
        Comparison("frame", Operator.EQUAL, ("7",)),
        Comparison("frame", Operator.EQUAL, (2**63,)),
        Comparison("ingest_time", Operator.ANY_OF, (1, "2")),
        Comparison("label", Operator.EQUAL, ("\0",)),
        Comparison("frame", Operator.ANY_OF, tuple(range(MAX_VALUES + 1))),
        joined(Junction.ANY, [Comparison("frame", Operator.EQUAL, (1,))] * (MAX_VALUES + 1)),
    ],
)
def test_a_tree_that_no_text_gives_is_refused_too(tree: Filter) -> None:
    with pytest.raises(InvalidInput) as refusal:
        check_filter(tree)
    assert refusal.value.subject == "filter"


@settings(max_examples=300, deadline=None)
@given(tree=trees, seed=st.integers(0, 2**32))
def test_every_spelling_of_a_filter_is_read_as_it(tree: Filter, seed: int) -> None:
    assert parse(spelled(tree, Random(seed))) == tree  # noqa: S311  # No secret.


@settings(max_examples=200, deadline=None)
@given(tree=trees)
def test_a_filter_selects_what_its_negation_does_not(
    tree: Filter, new_coding: NewCoding, new_case: NewCase
) -> None:
    assert negated(negated(tree)) == tree
    for number, label in enumerate(HOSTILE[:20]):
        case = new_case(new_coding(), number, label=label)
        assert matches(tree, case) != matches(negated(tree), case)


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ('label != "b"', ["", "a"]),
        ('NOT label = "b"', ["", "a"]),
        ('label < "b"', ["", "a"]),
        ('label = ""', [""]),
        ("label:*", ["a", "b"]),
        ('label:* AND label != "b"', ["a"]),
        ('label != ("a" OR "b")', [""]),
        ('label != ("" OR "b")', ["a"]),
    ],
)
def test_unknown_text_is_empty_text(
    new_coding: NewCoding, new_case: NewCase, text: str, selected: list[str]
) -> None:
    tree = parse(text)
    assert tree is not None
    case = new_case(new_coding(), 1)
    cases = [replace(case, label=label) for label in ("", "a", "b")]
    assert [one.label for one in cases if matches(tree, one)] == selected


@settings(max_examples=300)
@given(text=st.text(st.sampled_from("\"'\\ab%_(){}[]\u2028é\uff02"), max_size=12))
def test_a_literal_ends_where_it_was_to_end(text: str) -> None:
    # Read as the C-like grammars of Milvus read it: one literal, the text again, nothing left.
    quoted = literal(text)
    assert re.fullmatch(r'"([^"\\]|\\["\\])*"', quoted)
    assert re.sub(r"\\(.)", r"\1", quoted[1:-1]) == text


def test_the_page_on_filters_names_every_field() -> None:
    rows = [
        f"| `{name}` | {str(field.filterable).split('.')[1].lower()} | {field.about} |"
        for name, field in FILTERABLE.items()
    ]
    table = "\n".join(["| field | type | meaning |", "|---|---|---|", *rows])
    assert table in LANGUAGE.read_text(), f"docs/filters.md must hold:\n{table}"


def test_the_examples_of_the_page_on_filters_are_filters() -> None:
    blocks = re.findall(r"```filter\n(.*?)```", LANGUAGE.read_text(), re.DOTALL)
    examples = [line for block in blocks for line in block.splitlines()]
    assert len(examples) >= 10
    for line in examples:
        assert parse(line) is not None


def test_the_limits_of_the_page_on_filters_are_ours() -> None:
    text = LANGUAGE.read_text().replace("\n", " ")
    for limit in (f"{MAX_LENGTH:_} characters", f"{MAX_VALUES} values", f"{MAX_DEPTH} levels"):
        assert limit.replace("_", " ") in text
