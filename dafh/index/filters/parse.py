"""A caller's filter, read: a subset of AIP-160 over the public fields of a case (docs/filters.md).

The caller's text is never repeated in a message; it may name a patient.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from dafh.errors import InvalidInput, Reason
from dafh.index.checks import check_comparison, check_filter
from dafh.index.filters.tree import (
    MAX_DEPTH,
    Comparison,
    Filter,
    Junction,
    Operator,
    Value,
    depth,
    joined,
    membership,
    negated,
)
from dafh.index.schema import FIELDS, Field, FilterType

#: Longest filter, characters.
MAX_LENGTH = 16_384

#: What a filter may ask for, by the names that the contract gives them.
FILTERABLE = {field.asked_as: field for field in FIELDS if field.filterable is not None}

# As AIP-160 has it: OR binds tighter than a gap, and a gap tighter than AND.
_GRAMMAR = r"""
?start: expression
expression: sequence ("AND" sequence)*
sequence: factor+
factor: term ("OR" term)*
?term: simple
     | ("NOT" | "-") simple -> negation
?simple: restriction
       | "(" expression ")"
restriction: WORD COMPARATOR value
           | WORD COMPARATOR "(" value ("OR" value)* ")" -> choice
           | WORD COMPARATOR "*" -> presence
?value: WORD | TIME | QUOTED

COMPARATOR: "!=" | "<=" | ">=" | "=" | "<" | ">" | ":"
WORD: /[A-Za-z0-9_][A-Za-z0-9_.-]*/
TIME.1: /[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9:]+)?/
QUOTED: /"([^"\\]|\\.)*"|'([^'\\]|\\.)*'/s
%ignore /[ \t\r\n]+/
"""

_OPERATORS = {
    # A field holds one value, so having a value and being equal to it are the same.
    ":": Operator.EQUAL,
    "=": Operator.EQUAL,
    "!=": Operator.UNEQUAL,
    "<": Operator.LESS,
    "<=": Operator.AT_MOST,
    ">": Operator.GREATER,
    ">=": Operator.AT_LEAST,
}

#: What may stand at a place, for people.
_TOKENS = {
    "COMPARATOR": "one of = != < <= > >= :",
    "WORD": "a field",
    "AND": "AND",
    "OR": "OR",
    "RPAR": "')'",
    "$END": "the end",
}

_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = frozenset("\\\"'")
_NUMBER = re.compile(r"[0-9]{1,19}")
#: RFC 3339, no finer than what is stored.
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse(text: str) -> Filter | None:
    """Read a filter.

    Parameters
    ----------
    text
        At most `MAX_LENGTH` characters.

    Returns
    -------
    Filter | None
        ``None`` where the text is empty and selects every case.

    Raises
    ------
    InvalidInput
        It is no filter: the message says at which column, counted from 1, what was expected.

    Examples
    --------
    >>> parse('NOT modality = "CT"')
    Comparison(field='modality', operator=<Operator.UNEQUAL: '!='>, values=('CT',))
    """
    if len(text) > MAX_LENGTH:
        raise _refusal(f"filter has {len(text)} characters; at most {MAX_LENGTH}.")
    if not text.strip(" \t\r\n"):
        return None
    try:
        tree: Filter = _PARSER.parse(text)  # type: ignore[assignment]  # The builder makes trees.
    except UnexpectedCharacters as fault:
        at = fault.pos_in_stream or 0  # type: ignore[redundant-expr]  # Declared None.
        open_quote = text[at] in "\"'"
        what = "the quote to be closed" if open_quote else "quotes around such a character"
        raise _expected(at, what) from None
    except UnexpectedToken as fault:
        end = fault.token.type == "$END"
        raise _expected(
            len(text) if end else fault.token.start_pos, _choices(fault.accepts)
        ) from None
    check_filter(tree)
    return tree


@v_args(inline=True)
class _Builder(Transformer[Token, Filter]):
    """Makes each node as soon as its text was read: no text can nest too deeply for Python."""

    def expression(self, *terms: Filter) -> Filter:
        return _join(Junction.ALL, terms)

    sequence = expression

    def factor(self, *terms: Filter) -> Filter:
        return _join(Junction.ANY, terms)

    def negation(self, term: Filter) -> Filter:
        return negated(term)

    def restriction(self, name: Token, comparator: Token, value: Token) -> Filter:
        return _compared(_field(name), _OPERATORS[comparator], value)

    def choice(self, name: Token, comparator: Token, *values: Token) -> Filter:
        field = _field(name)
        if comparator not in ("=", "!=", ":"):
            raise _expected(comparator.start_pos, "=, != or : before a list of values")
        each = [_compared(field, Operator.EQUAL, value) for value in values]
        tree = membership(field.name, [comparison.values[0] for comparison in each])
        return negated(tree) if comparator == "!=" else tree

    def presence(self, name: Token, comparator: Token) -> Filter:
        field = _field(name)
        if comparator != ":":
            raise _expected(comparator.start_pos, "':' before *, or the * in quotes")
        if field.filterable is FilterType.TEXT:
            return Comparison(field.name, Operator.UNEQUAL, ("",))
        # Always there, and no index has a word for what is always true.
        return Comparison(field.name, Operator.AT_LEAST, (field.least,))


_PARSER = Lark(_GRAMMAR, parser="lalr", lexer="basic", transformer=_Builder())


def _join(junction: Junction, terms: tuple[Filter, ...]) -> Filter:
    tree = joined(junction, terms)
    if depth(tree) > MAX_DEPTH:
        raise _refusal(f"filter nests more than {MAX_DEPTH} levels deep.")
    return tree


def _field(name: Token) -> Field:
    field = FILTERABLE.get(name)
    if field is None:
        raise _expected(name.start_pos, f"one of the fields {', '.join(FILTERABLE)}")
    return field


def _compared(field: Field, how: Operator, value: Token) -> Comparison:
    comparison = Comparison(field.name, how, (_value(field, value),))
    try:
        check_comparison(comparison)
    except InvalidInput as fault:
        raise _refusal(f"filter, column {_column(value.start_pos)}: {fault.message}") from None
    return comparison


def _value(field: Field, token: Token) -> Value:
    text = _unquoted(token) if token.type == "QUOTED" else str(token)
    match field.filterable:
        case FilterType.NUMBER:
            if token.type == "QUOTED" or not _NUMBER.fullmatch(text):
                raise _expected(token.start_pos, "a whole number without quotes")
            return int(text)
        case FilterType.TIME:
            return _microseconds(text, token.start_pos)
        case _:
            return text


def _unquoted(token: Token) -> str:
    inside = token[1:-1]
    for escape in _ESCAPE.finditer(inside):
        if escape[1] not in _ESCAPED:
            at = (token.start_pos or 0) + 1 + escape.start(1)
            raise _expected(at, "a quote or another backslash after a backslash")
    return _ESCAPE.sub(r"\1", inside)


def _microseconds(text: str, at: int | None) -> int:
    try:
        if _TIME.fullmatch(text):
            return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)
    except ValueError:
        pass
    raise _expected(at, "a time such as 2026-11-24T08:30:00Z, microseconds at the finest")


def _choices(accepted: set[str]) -> str:
    if "QUOTED" in accepted:
        return "a value"
    return " or ".join(words for token, words in _TOKENS.items() if token in accepted)


def _column(at: int | None) -> int:
    return (at or 0) + 1


def _expected(at: int | None, what: str) -> InvalidInput:
    return _refusal(f"filter, column {_column(at)}: expected {what}.")


def _refusal(message: str) -> InvalidInput:
    return InvalidInput(
        Reason.ARGUMENT_INVALID,
        message,
        remedy='A filter looks like `modality = "CT" AND NOT label = "normal"`: AND, OR and NOT in '
        "capitals.",
        subject="filter",
    )
