"""A filter as a tree, and what it says of a case.

Fields are named as in `dafh.index.schema`. There is no node for negation: the negation of each node
is a node, so every tree can be written for an index that has no ``not``. Text that is unknown is
"" and compares as such; therefore exactly one of a filter and its negation selects a case.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

#: Milvus refuses an expression that nests 45 to 50 levels deep; what surrounds a filter needs some.
MAX_DEPTH = 32

#: Most values of one filter.
MAX_VALUES = 500

#: Text, or a number or time in the field's own unit.
Value: TypeAlias = str | int


class Operator(Enum):
    """How a stored value is compared: the word for it in Milvus."""

    EQUAL = "=="
    UNEQUAL = "!="
    LESS = "<"
    AT_MOST = "<="
    GREATER = ">"
    AT_LEAST = ">="
    ANY_OF = "in"
    NONE_OF = "not in"


class Junction(Enum):
    """How the terms of a group are joined: the word for it in Milvus."""

    ALL = "and"
    ANY = "or"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison of one field."""

    field: str
    operator: Operator
    #: Exactly one, except for `ANY_OF` and `NONE_OF`: there two or more, all different.
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Two or more terms of which all, or any, must hold; made with `joined`."""

    junction: Junction
    terms: tuple[Filter, ...]


Filter: TypeAlias = Comparison | Group

# Python compares text by code points, which is the order of its bytes in UTF-8: the servers' order.
_HOLDS: dict[Operator, Callable[[Any, Any], bool]] = {
    Operator.EQUAL: operator.eq,
    Operator.UNEQUAL: operator.ne,
    Operator.LESS: operator.lt,
    Operator.AT_MOST: operator.le,
    Operator.GREATER: operator.gt,
    Operator.AT_LEAST: operator.ge,
}

_OPPOSITE = {
    Operator.EQUAL: Operator.UNEQUAL,
    Operator.LESS: Operator.AT_LEAST,
    Operator.GREATER: Operator.AT_MOST,
    Operator.ANY_OF: Operator.NONE_OF,
}
_OPPOSITE |= {after: before for before, after in _OPPOSITE.items()}

_OTHER = {Junction.ALL: Junction.ANY, Junction.ANY: Junction.ALL}


def membership(field: str, values: Iterable[Value]) -> Comparison:
    """Return the comparison that selects any of one or more values.

    Examples
    --------
    >>> membership("modality", ["CT", "MR", "CT"]).values
    ('CT', 'MR')
    """
    different = tuple(dict.fromkeys(values))
    return Comparison(field, Operator.EQUAL if len(different) == 1 else Operator.ANY_OF, different)


def joined(junction: Junction, terms: Sequence[Filter]) -> Filter:
    """Join one or more terms; groups of the same kind become one."""
    if len(terms) == 1:
        return terms[0]
    flat: list[Filter] = []
    for term in terms:
        same = isinstance(term, Group) and term.junction is junction
        flat += term.terms if isinstance(term, Group) and same else [term]
    return Group(junction, tuple(flat))


def negated(tree: Filter) -> Filter:
    """Return the filter that selects exactly the other cases."""
    if isinstance(tree, Comparison):
        return Comparison(tree.field, _OPPOSITE[tree.operator], tree.values)
    return Group(_OTHER[tree.junction], tuple(negated(term) for term in tree.terms))


def matches(tree: Filter, row: object) -> bool:
    """Say whether a filter selects a row: anything with the fields as attributes, as a `Case`."""
    if isinstance(tree, Group):
        every = all if tree.junction is Junction.ALL else any
        return every(matches(term, row) for term in tree.terms)
    stored = getattr(row, tree.field)
    if tree.operator in _HOLDS:
        return _HOLDS[tree.operator](stored, tree.values[0])
    return (stored in tree.values) == (tree.operator is Operator.ANY_OF)


def comparisons(tree: Filter) -> Iterator[Comparison]:
    """Yield every comparison of a filter."""
    if isinstance(tree, Comparison):
        yield tree
    else:
        for term in tree.terms:
            yield from comparisons(term)


def depth(tree: Filter) -> int:
    """Return how deeply a filter nests when every group is written as halves of halves."""
    if isinstance(tree, Comparison):
        return 0
    return (len(tree.terms) - 1).bit_length() + max(depth(term) for term in tree.terms)
