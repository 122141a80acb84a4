"""A filter as a Milvus expression, and the one function by which a value enters an expression.

Only what Milvus Lite 2.5.1 and Milvus 2.3 both understand is written: comparisons with the field on
the left, ``in``, ``not in``, ``and`` and ``or`` in small letters and every group in brackets. Lite
has no ``not``; it takes the start of an expression for the whole where the rest is strange to it;
``like`` finds the wrong cases there, and a lone backslash in its pattern ends the server.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dafh.errors import Internal, Reason
from dafh.index.filters.tree import Comparison, Filter, Operator, Value
from dafh.index.schema import BY_NAME

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\""})
#: Control characters, and halves of a surrogate pair: no UTF-8 can hold those.
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

_LISTS = (Operator.ANY_OF, Operator.NONE_OF)


def literal(value: Value) -> str:
    r"""Return a value as Milvus reads it back, whatever it holds.

    Raises
    ------
    Internal
        No stored text holds such characters: it was never validated.

    Examples
    --------
    >>> print(literal('a"b'), literal(7))
    "a\"b" 7
    """
    if isinstance(value, int):
        return str(int(value))
    # Values were validated before; this is the last lock before text becomes language.
    if _UNWRITABLE.search(value):
        raise Internal(Reason.INDEX_WRONG, "A value that was never validated met an expression.")
    return f'"{value.translate(_ESCAPES)}"'


def literals(values: Sequence[Value]) -> str:
    """Return values as a list that Milvus reads back."""
    return f"[{', '.join(literal(value) for value in values)}]"


def written(tree: Filter) -> str:
    """Return a filter as an expression that can stand as a term of another."""
    if isinstance(tree, Comparison):
        if BY_NAME[tree.field].filterable is None:
            raise Internal(Reason.INDEX_WRONG, "A filter that was never validated met a search.")
        many = tree.operator in _LISTS
        values = literals(tree.values) if many else literal(tree.values[0])
        return f"{tree.field} {tree.operator.value} {values}"
    return _halved([written(term) for term in tree.terms], tree.junction.value)


def _halved(terms: Sequence[str], word: str) -> str:
    # A chain of n terms nests n levels deep for Milvus, halves of halves log2(n) (`tree.depth`).
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    return f"({_halved(terms[:half], word)} {word} {_halved(terms[half:], word)})"
