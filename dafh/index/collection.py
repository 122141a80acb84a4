"""How a coding lies in Milvus: its collection's name and description, rows and expressions.

The vector cannot be read back from a Milvus Lite search, so each row carries the code once more, as
one signed 64-bit integer: it holds every code length, always takes eight bytes, cannot have a
wrong length, and sixteen thousand of them become packed codes in one numpy call.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dafh.codes import HashCode
from dafh.errors import Internal, Reason
from dafh.imaging.image import PatientKey
from dafh.index.case import Case, CaseId, Coding, digest
from dafh.index.checks import check_text
from dafh.index.filters.milvus import literal, literals, written
from dafh.index.filters.tree import Filter
from dafh.index.port import Exclude
from dafh.index.schema import FIELDS, HEX_128, Kind, Source, fields_of

#: Version of the layout, kept in each collection's description.
LAYOUT = 1

VECTOR = "code"
#: What a search returns where only order matters.
NARROW = ["code_word"]
#: Everything a `Case` needs.
FULL = [
    field.name for field in FIELDS if field.kind is not Kind.CODE and field.source is Source.CASE
]

_WORD_BYTES = 8


def archive_key(tenant: str, archive: str) -> str:
    """Return what stands for an archive in names: 32 hexadecimal digits.

    Raises
    ------
    InvalidInput
        No archive can have that name.
    """
    check_text("archive", archive)
    return digest(tenant, archive)[:32]


def archive_prefix(tenant: str, archive: str) -> str:
    """Return how the names of all collections of one archive begin."""
    return f"dafh_{archive_key(tenant, archive)}_"


def collection_name(coding: Coding) -> str:
    """Return the name of a coding's collection: the same wherever it is asked for."""
    home = "dafh_shared_" if coding.shared else archive_prefix(coding.tenant, coding.archive)
    return home + coding.key


def describe(coding: Coding) -> str:
    """Return the collection's description: the coding, readable without knowing it.

    A shared collection belongs to no tenant, and its description names none.
    """
    if coding.shared:
        coding = replace(coding, tenant="", archive="", key_id="")
    return json.dumps({"layout": LAYOUT, **asdict(coding)}, sort_keys=True)


def read_description(text: str) -> Coding:
    """Read a description back.

    Raises
    ------
    Internal
        It was not written by this layout.
    """
    try:
        facts = json.loads(text)
        if facts["layout"] == LAYOUT:
            # A collection from before there were shared ones does not say that it is none.
            facts = {"shared": False, **facts}
            return Coding(**{field.name: facts[field.name] for field in fields(Coding)})
    except (ValueError, KeyError, TypeError):
        pass
    raise Internal(
        Reason.INDEX_WRONG,
        f"A collection of the archive does not have layout {LAYOUT}.",
        remedy="It belongs to another version of DAFH or to another program; look at it by hand.",
    )


def code_word(code: HashCode) -> int:
    """Return a code as a signed 64-bit integer: its bytes, most significant first, then zeros.

    Examples
    --------
    >>> code_word(HashCode.from_hex("0001")) == 1 << 48
    True
    """
    return int.from_bytes(code.packed.ljust(_WORD_BYTES, b"\0"), "big", signed=True)


def packed_codes(words: Sequence[int], bits: int) -> NDArray[np.uint8]:
    """Return the packed codes uint8 ``[N, bits / 8]`` of ``N`` code words.

    Examples
    --------
    >>> packed_codes([code_word(HashCode.from_hex("80ff"))], 16).tolist()
    [[128, 255]]
    """
    rows = np.array(words, ">i8").view(np.uint8).reshape(len(words), _WORD_BYTES)
    return np.ascontiguousarray(rows[:, : bits // 8])


def row_of(case: Case, coding: Coding) -> dict[str, str | int | bytes]:
    """Return the row that stores a case."""
    row: dict[str, str | int | bytes] = {}
    for field in fields_of(coding):
        if field.kind is Kind.CODE:
            row[field.name] = case.code.packed
        elif field.kind is Kind.CODE_WORD:
            row[field.name] = code_word(case.code)
        else:
            row[field.name] = getattr(coding if field.source is Source.CODING else case, field.name)
    return row


def case_of(row: Mapping[str, Any], bits: int) -> Case:
    """Return the case that a row, of the `FULL` fields at least, stores."""
    return Case(
        id=CaseId(row["id"]),
        code=HashCode(row["code_word"].to_bytes(_WORD_BYTES, "big", signed=True)[: bits // 8]),
        sop_instance_uid=row["sop_instance_uid"],
        study_instance_uid=row["study_instance_uid"],
        series_instance_uid=row["series_instance_uid"],
        frame=row["frame"],
        content_sha256=row["content_sha256"],
        ingest_time=row["ingest_time"],
        patient_key=PatientKey(row["patient_key"]),
        modality=row["modality"],
        body_part=row["body_part"],
        label=row["label"],
        cancer_type=row["cancer_type"],
    )


def expression(
    coding: Coding,
    *,
    exclude: Exclude | None = None,
    filter: Filter | None = None,  # noqa: A002  # As `Query` calls it.
    ids: Sequence[CaseId] | None = None,
    after: str | None = None,
    before: str | None = None,
    equal: Mapping[str, str] | None = None,
) -> str:
    """Return the Milvus expression that selects rows; the tenant is always part of it.

    Parameters
    ----------
    exclude
        What may not be selected.
    filter
        Select what it selects only; validated.
    ids
        Select these only.
    after
        Select primary keys greater than this only; "" is smaller than all.
    before
        Select primary keys smaller than this only.
    equal
        Select rows that have these values, validated, in these fields only.
    """
    terms = [f"tenant == {literal(coding.tenant)}"]
    if coding.shared:
        terms.append(f"archive == {literal(coding.archive)}")
    if exclude is not None:
        terms += [
            f"{name} != {literal(value)}" for name, value in asdict(exclude).items() if value != ""
        ]
    if ids is not None:
        terms.append(f"id in {literals(ids)}")
    if after is not None:
        terms.append(f"id > {literal(after)}")
    if before is not None:
        terms.append(f"id < {literal(before)}")
    terms += [f"{name} == {literal(value)}" for name, value in (equal or {}).items()]
    if filter is not None:
        terms.append(written(filter))
    return " and ".join(terms)


def possible(ids: Iterable[CaseId]) -> list[CaseId]:
    """Return each id once, in order; what is no primary key at all names no case."""
    return [key for key in dict.fromkeys(ids) if HEX_128.pattern.fullmatch(key)]
