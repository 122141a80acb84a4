"""Filters on real servers: each selects what it says, and no text of a caller selects more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.errors import InvalidInput, Reason
from dafh.index.case import Case, Coding
from dafh.index.collection import collection_name, row_of
from dafh.index.connection import Connection
from dafh.index.exact import ExactIndex
from dafh.index.filters.parse import MAX_LENGTH, parse
from dafh.index.filters.tree import (
    MAX_DEPTH,
    MAX_VALUES,
    Comparison,
    Filter,
    Junction,
    Operator,
    depth,
    joined,
    matches,
    membership,
)
from dafh.index.milvus import MilvusIndex
from dafh.index.port import Exclude, Query
from tests.index.trees import ANYTHING, HOSTILE, HOW, filters, spelled

if TYPE_CHECKING:
    from dafh.index.endpoint import Endpoint
    from tests.index.servers import Server

pytestmark = pytest.mark.stack

ZERO = HashCode(bytes(2))

#: Small enough that every candidate list has to grow, so that hits are read a second time.
EACH = 3


@dataclass(frozen=True)
class Stocked:
    """An index, the same cases in memory, and rows of another tenant in the same collection."""

    milvus: MilvusIndex
    exact: ExactIndex
    #: Cases whose texts are `HOSTILE`, in order, as often as `EACH`.
    cases: list[Case]

    def agree(self, query: Query) -> list[Case]:
        """The cases that both find, which are all of this tenant."""
        found = self.milvus.search(query, Deadline.after(60))
        assert found == self.exact.search(query, Deadline.after(60))
        own = {case.id for case in self.cases}
        assert all(hit.case.id in own for hit in found.hits)
        return [hit.case for hit in found.hits]

    def selected(self, tree: Filter | None) -> list[Case]:
        return self.agree(Query(ZERO, 1000, filter=tree))


@pytest.fixture(scope="module")
def stocked(
    server: Server,
    opened: Callable[[Endpoint, Coding], MilvusIndex],
    new_coding: Callable[..., Coding],
    new_case: Callable[..., Case],
) -> Stocked:
    coding = new_coding(bits=16)
    index = opened(server.endpoint, coding)
    short = [text for text in HOSTILE if len(text.encode()) <= 16]
    medium = [text for text in HOSTILE if len(text.encode()) <= 64]
    cases = [
        new_case(
            coding,
            number,
            frame=1 + number % 3,
            label=text,
            cancer_type=HOSTILE[-1 - place],
            modality=short[number % len(short)],
            body_part=medium[number % len(medium)],
            study_instance_uid="" if number % 5 == 0 else f"1.{number % 5}",
            ingest_time=(0, 1, 1_700_000_000_000_000, 1_700_000_000_123_456)[number % 4],
            code=HashCode(bytes([0, number % 4])),
        )
        for place, text in enumerate(HOSTILE)
        for number in range(EACH * place, EACH * (place + 1))
    ]
    soon = Deadline.after(60)
    index.upsert(cases, soon)
    foreign = replace(coding, tenant="other")
    rows = [row_of(new_case(foreign, n, label=one.label), foreign) for n, one in enumerate(cases)]
    connection = Connection(server.endpoint, soon)
    connection.run(
        "adding rows of another tenant",
        soon,
        lambda client, timeout: client.upsert(collection_name(coding), rows, timeout=timeout),
    )
    counted = connection.run(
        "counting all rows",
        soon,
        lambda client, timeout: client.query(
            collection_name(coding),
            filter='id > ""',
            output_fields=["count(*)"],
            consistency_level="Strong",
            timeout=timeout,
        ),
    )
    connection.close()
    assert counted[0]["count(*)"] == 2 * len(cases)
    return Stocked(index, ExactIndex(coding, cases), cases)


def generated(count: int) -> settings:
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def test_every_operator_takes_every_text(stocked: Stocked) -> None:
    for text in HOSTILE:
        only = stocked.selected(Comparison("label", Operator.EQUAL, (text,)))
        assert [case.label for case in only] == [text] * EACH
        for how in (Operator.UNEQUAL, Operator.LESS, Operator.AT_LEAST):
            tree = Comparison("label", how, (text,))
            expected = {case.id for case in stocked.cases if matches(tree, case)}
            assert {case.id for case in stocked.selected(tree)} == expected


@generated(60)
@given(tree=filters(ANYTHING), seed=st.integers(0, 2**32))
def test_every_filter_selects_on_a_server_what_it_selects_in_memory(
    stocked: Stocked, tree: Filter, seed: int
) -> None:
    stocked.selected(parse(spelled(tree, Random(seed))))  # noqa: S311  # No secret.


@pytest.mark.long
@pytest.mark.timeout(1800)
@generated(1500)
@given(tree=filters(ANYTHING, leaves=30), how=HOW, top_k=st.sampled_from([1, 7, 40, 1000]))
def test_many_filters_select_on_a_server_what_they_select_in_memory(
    stocked: Stocked, tree: Filter, how: Operator, top_k: int
) -> None:
    stocked.agree(
        Query(ZERO, top_k, filter=tree, exclude=Exclude(stocked.cases[0].sop_instance_uid))
    )
    stocked.selected(Comparison("label", how, (stocked.cases[top_k % 50].label,)))


def test_as_large_a_filter_as_there_may_be_is_understood(stocked: Stocked) -> None:
    own = stocked.cases[5]
    uids = " OR ".join(f"1.2.{number}{'9' * 50}" for number in range(200))
    frames = " OR ".join(str(number) for number in range(2, MAX_VALUES + 2))
    for text, expected in (
        (f"sop_instance_uid = ({uids} OR {own.sop_instance_uid})", [own]),
        (f"NOT frame = ({frames})", [case for case in stocked.cases if case.frame == 1]),
        (" OR ".join(["frame = 1"] * MAX_VALUES), [c for c in stocked.cases if c.frame == 1]),
        (" ".join(["frame != 1"] * MAX_VALUES), [c for c in stocked.cases if c.frame != 1]),
    ):
        assert len(text) <= MAX_LENGTH
        assert {case.id for case in stocked.selected(parse(text))} == {one.id for one in expected}


def test_as_deep_a_filter_as_there_may_be_is_understood(stocked: Stocked) -> None:
    deepest: Filter = membership("frame", [1, 2])
    for level in range(MAX_DEPTH):
        other = Comparison("label", Operator.EQUAL, ("a" if level % 2 else "",))
        deepest = joined(Junction.ANY if level % 2 else Junction.ALL, [other, deepest])
    assert depth(deepest) == MAX_DEPTH
    # With everything else that can stand beside a filter in an expression.
    exclude = Exclude("1.2.3", "1.2.4", stocked.cases[0].patient_key)
    stocked.agree(Query(ZERO, 1, filter=deepest, exclude=exclude))
    stocked.agree(Query(ZERO, 300, filter=deepest, exclude=exclude))


ATTACKS = [
    *(
        'label = "x" or tenant != ""',
        "label = 'x\" or tenant != \"'",
        'label = "x\\" or tenant != \\""',
    ),
    *('label = "\\\\" or tenant != \\""', 'label = "\\\\\\" or tenant != \\"a"', 'tenant != ""'),
    *('label != "x") or (tenant != "x"', 'label = "x") OR (frame > 0', "label = x || tenant != y"),
    *(
        "label = x\x00 or tenant != y",
        'label = "x\x00" or tenant != "y"',
        'label = "x\n" or id > ""',
    ),
    *(
        "label = \uff02 or tenant != \uff02\uff02",
        'label = "\uff02 or tenant != \uff02"',
        "label in ['']",
    ),
    *('label = "" or true', "label = {tenant}", 'label = "{tenant}"', "label = $tenant", "1 = 1"),
    *('label like "%"', 'label = "%"', 'not (label = "x")', '!(label = "x")', "exists(tenant)"),
    *(
        'label = "x" /* ',
        'label = "x" //',
        'label = "x" --',
        'label = "x"; drop collection',
        "id > ''",
    ),
    *(
        'label = ("a" OR "b] or tenant not in [")',
        'label:("a\\" OR tenant != \\"")',
        "TENANT = other",
    ),
    *("label = \U0001d5d4 OR tenant = other", "t\u0435nant = other", "tenant\u200b = other"),
    *(
        'label != "\ud800"',
        "\ufefflabel != x",
        "label !\u200b= x",
        "label ≠ x",
        "label = x \uff2f\uff32 frame > 0",
    ),
    *("(" * 100_000, '"' * 100_000, "\\" * 100_000, "NOT " * 4000, "a" * 100_000, "-(" * 8000),
    *("label = " + "(" * 8000, "frame = 1 OR " * 1000, 'label = "' + "\\" * 16_000, "%s%n%d"),
    *(
        'patient_key != ""',
        'label = "x" OR patient_key > "0"',
        "code_word = 0",
        "count(*)",
        "id = x",
    ),
]


@pytest.mark.parametrize("text", ATTACKS, ids=range(len(ATTACKS)))
def test_no_attack_selects_more_than_the_language_says(stocked: Stocked, text: str) -> None:
    answered(stocked, text)


def answered(stocked: Stocked, text: str) -> None:
    """Either the text is refused, or both indexes agree on what it selects."""
    refusal = None
    try:
        tree = parse(text)
    except InvalidInput as fault:
        refusal = fault
    if refusal is None:
        stocked.selected(tree)
    else:
        assert (refusal.reason, refusal.subject) == (Reason.ARGUMENT_INVALID, "filter")


FRAGMENTS = (
    *(
        '"',
        "'",
        "\\",
        "(",
        ")",
        "[",
        "]",
        "-",
        "*",
        "%",
        ",",
        "{",
        "}",
        "\x00",
        "\n",
        "\uff02",
        "é",
    ),
    *(
        " AND ",
        " OR ",
        " NOT ",
        " or ",
        " and ",
        " not in ",
        " like ",
        "=",
        "!=",
        "<",
        ">=",
        ":",
        " ",
    ),
    *(
        "label",
        "frame",
        "tenant",
        "other",
        "id",
        "create_time",
        "x",
        "1",
        '""',
        "2026-11-24T08:30:00Z",
    ),
    *('label = "', 'label != "', "frame > 0", 'tenant != "', "modality = (", "label:*"),
)


@generated(400)
@given(
    around=st.sampled_from(["{}", "label = '{}'", 'label != "{}"']),
    pieces=st.lists(st.sampled_from(FRAGMENTS), max_size=14),
)
@example(around="{}", pieces=['label = "', "\\", '"', " or ", 'tenant != "', '"'])
def test_no_made_up_text_selects_more_than_the_language_says(
    stocked: Stocked, around: str, pieces: list[str]
) -> None:
    answered(stocked, around.replace("{}", "".join(pieces)))


@generated(60)
@given(text=st.text(st.sampled_from("\"'\\ %_*()[]=!<or tenant\uff02é\u2028"), max_size=40))
@example(text='" or tenant != "')
@example(text="\\")
@example(text='\\" or tenant != \\"')
def test_any_quoted_text_is_compared_as_it_is(stocked: Stocked, text: str) -> None:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    found = stocked.selected(parse(f'label = "{escaped}"'))
    assert {case.label for case in found} <= {text}
    assert len(found) == EACH * (text in HOSTILE)
    assert len(stocked.selected(parse(f'label != "{escaped}"'))) == len(stocked.cases) - len(found)
