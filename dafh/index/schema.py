"""The fields of a collection, once: all that depends on them comes from this table.

Storage, validation, the canonical hash, dumps and ``docs/index-schema.md`` do.

Milvus Lite stores a code of the wrong length and corrupts its neighbours, and takes text longer
than the field: nothing reaches an adapter's storage that this module has not checked.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

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


class Kind(Enum):
    """How a field is stored."""

    #: UTF-8 text of bounded length.
    TEXT = auto()
    #: Signed integer of 64 bits.
    INTEGER = auto()
    #: The packed code, as the vector that is searched.
    CODE = auto()
    #: The packed code once more, as an integer (`dafh.index.collection.code_word`).
    CODE_WORD = auto()


class Source(Enum):
    """Where the value of a field comes from."""

    CASE = auto()
    #: The same in every row of a collection.
    CODING = auto()


class FilterType(Enum):
    """How a filter writes the values of a field (docs/filters.md)."""

    TEXT = auto()
    NUMBER = auto()
    #: Microseconds since the epoch, written as in RFC 3339.
    TIME = auto()


@dataclass(frozen=True, slots=True)
class Syntax:
    """What a text may be."""

    pattern: re.Pattern[str]
    #: For people: what was expected.
    expected: str
    reason: Reason = Reason.ARGUMENT_INVALID


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a collection."""

    name: str
    kind: Kind
    #: Largest length of a text in bytes of UTF-8: what Milvus's VARCHAR counts.
    max_bytes: int = 0
    required: bool = False
    syntax: Syntax | None = None
    #: Smallest value of an integer.
    least: int = 0
    source: Source = Source.CASE
    #: Whether it is metadata that two rows of one frame can disagree on.
    canonical: bool = True
    #: Whether only collections that several archives share have it.
    shared_only: bool = False
    #: How a filter writes its values; ``None`` where no filter may ask for it.
    filterable: FilterType | None = None
    #: Its name in the contract and in filters, where that is another.
    public_name: str = ""
    #: What it means, for people.
    about: str = ""

    @property
    def asked_as(self) -> str:
        """Its name in filters."""
        return self.public_name or self.name


HEX_128 = Syntax(re.compile(r"[0-9a-f]{32}"), "32 lower-case hexadecimal digits")
HEX_256 = Syntax(re.compile(r"[0-9a-f]{64}"), "64 lower-case hexadecimal digits")
#: PS3.5 9.1 forbids leading zeros and other roots than 0 to 2 too, but archives hold such UIDs; the
#: length is the field's.
UID = Syntax(
    re.compile(r"[0-9]+(\.[0-9]+)*"),
    "a UID of digits and dots, without empty components (PS3.5 9.1)",
    Reason.UID_INVALID,
)
NAME = Syntax(
    re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"),
    "letters, digits, '.', '_' and '-', starting and ending with a letter or digit",
)
#: Free text is stored as it is, but control characters have no place in it (PS3.5 6.1.3).
PLAIN = Syntax(re.compile(r"[^\x00-\x1f\x7f-\x9f]*"), "text without control characters")

_MOST = 2**63 - 1

FIELDS = (
    Field(
        "id",
        Kind.TEXT,
        32,
        required=True,
        syntax=HEX_128,
        about="Primary key: the first half of a SHA-256 of tenant, archive, SOP Instance UID and "
        "frame, so that the same frame has the same key whenever it arrives.",
    ),
    Field(
        "code",
        Kind.CODE,
        required=True,
        canonical=False,
        about="The hash code: bit i is bit 7 - i % 8 of byte i // 8.",
    ),
    Field(
        "code_word",
        Kind.CODE_WORD,
        required=True,
        canonical=False,
        about="The code once more, as an integer (decision 0003).",
    ),
    Field(
        "tenant",
        Kind.TEXT,
        64,
        required=True,
        syntax=NAME,
        source=Source.CODING,
        about="Whose case it is; part of every expression, and the partition key of a shared "
        "collection where the server has one that works.",
    ),
    Field(
        "archive",
        Kind.TEXT,
        64,
        required=True,
        syntax=NAME,
        source=Source.CODING,
        shared_only=True,
        about="The tenant's archive that it belongs to; part of every expression.",
    ),
    Field(
        "key_id",
        Kind.TEXT,
        64,
        required=True,
        syntax=NAME,
        source=Source.CODING,
        about="Public name of the key that made the patient key.",
    ),
    Field(
        "patient_key",
        Kind.TEXT,
        64,
        syntax=HEX_256,
        about="Keyed pseudonym of the patient; empty where Patient ID (0010,0020) is.",
    ),
    Field(
        "sop_instance_uid",
        Kind.TEXT,
        64,
        required=True,
        syntax=UID,
        filterable=FilterType.TEXT,
        about="SOP Instance UID (0008,0018).",
    ),
    Field(
        "study_instance_uid",
        Kind.TEXT,
        64,
        syntax=UID,
        filterable=FilterType.TEXT,
        about="Study Instance UID (0020,000D).",
    ),
    Field(
        "series_instance_uid",
        Kind.TEXT,
        64,
        syntax=UID,
        filterable=FilterType.TEXT,
        about="Series Instance UID (0020,000E).",
    ),
    Field(
        "frame",
        Kind.INTEGER,
        required=True,
        least=1,
        filterable=FilterType.NUMBER,
        about="Number of the frame in its instance, counted from 1.",
    ),
    Field(
        "content_sha256",
        Kind.TEXT,
        64,
        required=True,
        syntax=HEX_256,
        about="SHA-256 of the frame's stored values after transfer-syntax decode.",
    ),
    Field(
        "modality",
        Kind.TEXT,
        16,
        syntax=PLAIN,
        filterable=FilterType.TEXT,
        about="Modality (0008,0060).",
    ),
    Field(
        "body_part",
        Kind.TEXT,
        64,
        syntax=PLAIN,
        filterable=FilterType.TEXT,
        about="Body Part Examined (0018,0015).",
    ),
    Field(
        "label",
        Kind.TEXT,
        256,
        syntax=PLAIN,
        filterable=FilterType.TEXT,
        about="Class of the image, where known.",
    ),
    Field(
        "cancer_type",
        Kind.TEXT,
        256,
        syntax=PLAIN,
        filterable=FilterType.TEXT,
        about="Cancer type, where known; `none` is never shared by two cases.",
    ),
    Field(
        "ingest_time",
        Kind.INTEGER,
        required=True,
        canonical=False,
        filterable=FilterType.TIME,
        public_name="create_time",
        about="When it was indexed first: microseconds since the epoch, UTC.",
    ),
)

BY_NAME = {field.name: field for field in FIELDS}

#: What a coding's own texts may be.
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


def fields_of(coding: Coding) -> tuple[Field, ...]:
    """Return the fields that the collection of a coding has."""
    return tuple(field for field in FIELDS if coding.shared or not field.shared_only)


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
    elif not isinstance(value, int) or not -_MOST <= value <= _MOST:
        raise _invalid(field.asked_as, f"is no integer from -{_MOST} to {_MOST}")


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


def metadata_sha256(case: Case) -> str:
    """Return the SHA-256 of a case's canonical metadata: every field but code and ingest time.

    JSON with sorted keys, no spaces and ASCII escapes, so that every adapter hashes the same bytes.
    """
    metadata = {
        field.name: getattr(case, field.name)
        for field in FIELDS
        if field.canonical and field.source is Source.CASE
    }
    text = json.dumps(metadata, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


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
    if not field.least <= value <= _MOST:
        raise _invalid(field.name, f"is {value}; expected {field.least} to {_MOST}")


def _too_long(field: Field, length: int, unit: str) -> InvalidInput:
    return _invalid(field.name, f"has {length} {unit}; at most {field.max_bytes}", field.syntax)


def _invalid(name: str, fault: str, syntax: Syntax | None = None) -> InvalidInput:
    reason = syntax.reason if syntax else Reason.ARGUMENT_INVALID
    return InvalidInput(reason, f"{name} {fault}.", subject=name)
