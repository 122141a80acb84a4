"""What an index takes: nothing reaches an adapter's storage that this module has not checked.

Milvus Lite stores a code of the wrong length and corrupts its neighbours, and takes text longer
than the field.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dafh.codes import BITS
from dafh.errors import InvalidInput, Reason
from dafh.index.case import Case, Coding, case_id
from dafh.index.filters.tree import (
    MAX_DEPTH,
    MAX_VALUES,
    Comparison,
    Filter,
    Value,
    comparisons,
    depth,
)
from dafh.index.port import CAPS, MAX_TOP_K, Query
from dafh.index.schema import (
    BY_NAME,
    FIELDS,
    HEX_128,
    MOST,
    Field,
    FilterType,
    Kind,
    Source,
    Syntax,
)

_CODING_FIELDS = (
    BY_NAME["tenant"],
    BY_NAME["archive"],
    BY_NAME["key_id"],
    Field(
        "model_hash",
        Kind.TEXT,
        64,
        required=True,
        syntax=Syntax(re.compile(r"[0-9a-f]+"), "lower-case hexadecimal digits"),
    ),
)


def check_text(field: str, value: str) -> None:
    """Refuse a text that a field cannot hold.

    Raises
    ------
    InvalidInput
        It is missing, too long or of another syntax.
    """
    _check_text(replace(BY_NAME[field], required=True), value)


def check_coding(coding: Coding) -> None:
    """Refuse a coding that no collection can hold.

    Raises
    ------
    InvalidInput
        A name or hash has the wrong syntax, or no network gives codes of that length.
    """
    for field in _CODING_FIELDS:
        _check_text(field, getattr(coding, field.name))
    if coding.bits not in BITS:
        raise _invalid("bits", f"is {coding.bits}; expected one of {BITS}")


def check_cases(coding: Coding, cases: Sequence[Case]) -> None:
    """Refuse a batch of which any case cannot be stored as it is.

    Raises
    ------
    InvalidInput
        The first fault found: its `subject` is the field; the message never holds the value.
    """
    for position, case in enumerate(cases):
        try:
            _check_case(coding, case)
        except InvalidInput as fault:
            raise InvalidInput(
                fault.reason,
                f"Case {position + 1} of {len(cases)}: {fault.message}",
                subject=fault.subject,
            ) from None


def check_query(coding: Coding, query: Query) -> None:
    """Refuse a question that the index cannot answer.

    Raises
    ------
    InvalidInput
        The code has another length, a number lies out of range, or an exclusion is malformed.
    """
    _check_code(coding, query.code.bits)
    if not 1 <= query.top_k <= MAX_TOP_K:
        raise _invalid("top_k", f"is {query.top_k}; expected 1 to {MAX_TOP_K}")
    if query.max_distance is not None and query.max_distance < 0:
        raise _invalid("max_distance", "is negative")
    output = query.hash_output
    if output is not None and output.shape != (coding.bits,):
        raise _invalid("hash_output", f"has shape {output.shape}; expected ({coding.bits},)")
    # Half precision may round a hyperbolic tangent a little past 1.
    if output is not None and not bool((np.abs(output) <= 1.001).all()):
        raise _invalid("hash_output", "holds values outside [-1, 1]")
    for name in ("sop_instance_uid", "study_instance_uid", "patient_key"):
        value = getattr(query.exclude, name)
        if value:
            _check_text(BY_NAME[name], value)
    _check_choice(coding, query)


def check_filter(tree: Filter) -> None:
    """Refuse a filter that an index cannot be asked.

    Raises
    ------
    InvalidInput
        It nests too deeply, has too many values, or holds a comparison that `check_comparison`
        refuses.
    """
    levels = depth(tree)
    if levels > MAX_DEPTH:
        raise _invalid("filter", f"nests {levels} levels deep; at most {MAX_DEPTH}")
    asked = list(comparisons(tree))
    count = sum(len(comparison.values) for comparison in asked)
    if count > MAX_VALUES:
        raise _invalid("filter", f"has {count} values; at most {MAX_VALUES}")
    for comparison in asked:
        check_comparison(comparison)


def check_comparison(comparison: Comparison) -> None:
    """Refuse a comparison with a field that is not public or a value that it cannot have.

    Raises
    ------
    InvalidInput
        Its `subject` is ``filter``; the message never holds the value.
    """
    field = BY_NAME.get(comparison.field)
    if field is None or field.filterable is None:
        raise _invalid("filter", "names a field that no filter may ask for")
    try:
        for value in comparison.values:
            _check_asked(field, value)
    except InvalidInput as fault:
        raise InvalidInput(Reason.ARGUMENT_INVALID, fault.message, subject="filter") from None


def _check_asked(field: Field, value: Value) -> None:
    if field.filterable is FilterType.TEXT:
        # "" asks for what is unknown.
        if value != "":
            _check_text(field, value)
    elif not isinstance(value, int) or not -MOST <= value <= MOST:
        raise _invalid(field.asked_as, f"is no integer from -{MOST} to {MOST}")


def _check_choice(coding: Coding, query: Query) -> None:
    """Refuse what limits the answer to a part of what is near."""
    for name, _ in CAPS:
        most = getattr(query, name)
        if most is not None and most < 1:
            raise _invalid(name, f"is {most}; expected 1 or more")
    if query.filter is not None:
        check_filter(query.filter)
    after = query.after
    if after is not None and not (
        0 <= after.distance <= coding.bits
        and math.isfinite(after.score)
        and HEX_128.pattern.fullmatch(after.id)
    ):
        raise _invalid("after", "is no place in an answer of this archive")


def _check_case(coding: Coding, case: Case) -> None:
    _check_code(coding, case.code.bits)
    for field in FIELDS:
        if field.source is not Source.CASE or field.kind in (Kind.CODE, Kind.CODE_WORD):
            continue
        value = getattr(case, field.name)
        if field.kind is Kind.TEXT:
            _check_text(field, value)
        else:
            _check_integer(field, value)
    own = case_id(coding.tenant, coding.archive, case.sop_instance_uid, case.frame)
    if case.id != own:
        raise _invalid("id", "is not the key of this tenant, archive, instance and frame")


def _check_code(coding: Coding, bits: int) -> None:
    if bits != coding.bits:
        raise InvalidInput(
            Reason.CODE_LENGTH_MISMATCH,
            f"code has {bits} bits; the archive's codes have {coding.bits}.",
            subject="code",
        )


def _check_text(field: Field, value: object) -> None:
    if not isinstance(value, str):
        raise _invalid(field.name, f"is {type(value).__name__}; expected text")
    if not value:
        if field.required:
            raise _invalid(field.name, "is missing", field.syntax)
        return
    # First the cheap bound: nobody's pattern runs over a megabyte.
    if len(value) > field.max_bytes:
        raise _too_long(field, len(value), "characters")
    try:
        encoded = value.encode()
    except UnicodeEncodeError:
        raise _invalid(field.name, "cannot be written as UTF-8", field.syntax) from None
    if len(encoded) > field.max_bytes:
        raise _too_long(field, len(encoded), "bytes of UTF-8")
    if field.syntax is not None and not field.syntax.pattern.fullmatch(value):
        raise _invalid(field.name, f"is not {field.syntax.expected}", field.syntax)


def _check_integer(field: Field, value: object) -> None:
    if not isinstance(value, int):
        raise _invalid(field.name, f"is {type(value).__name__}; expected an integer")
    if not field.least <= value <= MOST:
        raise _invalid(field.name, f"is {value}; expected {field.least} to {MOST}")


def _too_long(field: Field, length: int, unit: str) -> InvalidInput:
    return _invalid(field.name, f"has {length} {unit}; at most {field.max_bytes}", field.syntax)


def _invalid(name: str, fault: str, syntax: Syntax | None = None) -> InvalidInput:
    reason = syntax.reason if syntax else Reason.ARGUMENT_INVALID
    return InvalidInput(reason, f"{name} {fault}.", subject=name)
