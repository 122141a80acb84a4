"""The fields of a collection, once: all that depends on them comes from this table.

Storage, `dafh.index.checks`, the canonical hash, dumps and ``docs/index-schema.md`` do.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from enum import Enum, auto

from dafh.errors import Reason
from dafh.index.case import Case, Coding


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

MOST = 2**63 - 1

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
def fields_of(coding: Coding) -> tuple[Field, ...]:
    """Return the fields that the collection of a coding has."""
    return tuple(field for field in FIELDS if coding.shared or not field.shared_only)


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
