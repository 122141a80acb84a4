"""Filters made up by hypothesis, and the many ways to spell each."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from random import Random

from hypothesis import strategies as st

from dafh.index.filters.parse import FILTERABLE
from dafh.index.filters.tree import (
    Comparison,
    Filter,
    Group,
    Junction,
    Operator,
    Value,
    joined,
    membership,
    negated,
)
from dafh.index.schema import BY_NAME, UID, Field, FilterType

#: Text that a careless index takes for language, or sorts or compares otherwise than by its bytes.
HOSTILE = (
    *("", "a", "A", "ab", "a b", "é", "漢", "\uff02", "\U0001f600", "\uffff", "a\u2028b", "\u202e"),
    *(
        'a"b',
        "a'b",
        '"',
        "'",
        "\\",
        "a\\",
        '\\"',
        "\\\\",
        "\\n",
        "\\u0022",
        "\\x22",
        "\\%",
        "back\\s",
    ),
    *('" or tenant != "', '" or true or label == "', '") or (id > "', "' or '1' == '1", "//", "/*"),
    *(
        "%",
        "_",
        "*",
        "a%",
        "%b",
        "a_b",
        "{label}",
        "{0}",
        "$x",
        "null",
        "true",
        "and",
        "AND",
        "[a]",
    ),
    *('a" /*', '"; drop', 'a" in ["', 'label == "a"', "x" * 256, "漢" * 85, '"' * 256, "\\" * 256),
)

HOW = st.sampled_from([one for one in Operator if one not in (Operator.ANY_OF, Operator.NONE_OF)])

_BARE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def comparisons(pools: dict[str, list[Value]]) -> st.SearchStrategy[Filter]:
    """Return comparisons of fields with values of their pools."""

    def of(field: str) -> st.SearchStrategy[Filter]:
        values = st.sampled_from(pools[field])
        many = st.lists(values, min_size=1, max_size=5).map(lambda some: membership(field, some))
        return (
            st.builds(lambda how, one: Comparison(field, how, (one,)), HOW, values)
            | many
            | many.map(negated)
        )

    return st.sampled_from(sorted(pools)).flatmap(of)


def filters(pools: dict[str, list[Value]], leaves: int = 8) -> st.SearchStrategy[Filter]:
    """Return filters over fields with values of their pools."""
    return st.recursive(
        comparisons(pools),
        lambda inner: st.builds(
            joined, st.sampled_from(Junction), st.lists(inner, min_size=1, max_size=4)
        ),
        max_leaves=leaves,
    )


def spelled(tree: Filter, random: Random) -> str:
    """Return one of the texts that mean a filter."""
    if random.random() < 0.15:
        return f"({spelled(tree, random)})"
    if random.random() < 0.15:
        return random.choice(["NOT ", "-", "NOT"]) + f"({spelled(negated(tree), random)})"
    if isinstance(tree, Comparison):
        return _comparison(tree, random)
    return _group(tree, random)


def _group(tree: Group, random: Random) -> str:
    if tree.junction is Junction.ANY:
        return " OR ".join(_enclosed(term, random) for term in tree.terms)
    # OR binds tighter than AND and than a gap, so its terms need no brackets.
    text = ""
    for term in tree.terms:
        one = spelled(term, random)
        if isinstance(term, Group) and term.junction is Junction.ALL:
            one = f"({one})"
        gap = random.choice([" AND ", " ", "\n\tAND\r\n"])
        text += gap + one if text else one
    return text


def _enclosed(term: Filter, random: Random) -> str:
    text = spelled(term, random)
    return f"({text})" if isinstance(term, Group) else text


def _comparison(tree: Comparison, random: Random) -> str:
    field = BY_NAME[tree.field]
    name, space = field.asked_as, random.choice(["", " ", "\t"])
    values = [_value(field.filterable, value, random) for value in tree.values]
    if tree.operator in (Operator.ANY_OF, Operator.NONE_OF):
        how = "!=" if tree.operator is Operator.NONE_OF else random.choice(["=", ":"])
        return f"{name}{space}{how}{space}({' OR '.join(values)})"
    if tree.operator is Operator.UNEQUAL and tree.values == ("",) and random.random() < 0.5:
        return f"{name}{space}:{space}*"
    how = {"==": random.choice(["=", ":"])}.get(tree.operator.value, tree.operator.value)
    return f"{name}{space}{how}{space}{values[0]}"


def _value(kind: FilterType | None, value: Value, random: Random) -> str:
    if isinstance(value, int) and kind is FilterType.NUMBER:
        return str(value)
    if isinstance(value, int):
        offset = timezone(timedelta(minutes=random.choice([0, 330, -210])))
        text = (_EPOCH + timedelta(microseconds=value)).astimezone(offset).isoformat()
        text = text.replace("+00:00", random.choice(["Z", "+00:00"]))
        return random.choice([text, f'"{text}"', f"'{text}'"])
    if _BARE.fullmatch(value) and value not in ("AND", "OR", "NOT") and random.random() < 0.5:
        return value
    quote = random.choice("\"'")
    return quote + value.replace("\\", "\\\\").replace(quote, "\\" + quote) + quote


def _pool(field: Field) -> list[Value]:
    if field.syntax is UID:
        return ["", "1.2", "1.2.826.0.1.3", "0." + "9" * 62]
    pools: dict[FilterType | None, list[Value]] = {
        FilterType.TEXT: [text for text in HOSTILE if len(text.encode()) <= field.max_bytes],
        FilterType.NUMBER: [0, 1, 2, 2**63 - 1],
        FilterType.TIME: [0, 1, -1, 1_700_000_000_000_000, 1_700_000_000_123_456, -(10**15)],
    }
    return pools[field.filterable]


#: Values that each field can be asked for, the strangest among them.
ANYTHING = {field.name: _pool(field) for field in FILTERABLE.values()}
