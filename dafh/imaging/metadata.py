"""The allow-list: the only elements of a file whose content leaves this package.

Everything else is dropped, and so is a listed element whose value is not of the form it must
have: free text can hold a name anywhere. Reasoning after PS3.15 Annex E (Basic Application
Confidentiality Profile): UIDs are kept because a hit must be openable ("Retain UIDs"), the year of
the study because a year identifies nobody ("Retain Longitudinal Temporal Information with Modified
Dates"), the model because it names a type of device and no device (serial numbers are not read).
Patient identity becomes a keyed pseudonym.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from dafh.errors import InvalidInput, Reason
from dafh.imaging.elements import DataSet, Tag
from dafh.imaging.image import Metadata, PatientKey, PatientKeyer
from dafh.imaging.notes import Notes
from dafh.imaging.pixels import PixelFormat
from dafh.imaging.refusal import tag_name
from dafh.imaging.terms import BODY_PARTS, LATERALITIES, MODALITIES, VIEWS

#: UID syntax, PS3.5 9.1: at most 64 characters, components without leading zeros.
UID_PATTERN = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
UID_LENGTH = 64

#: A product's name: Latin letters, digits and a little punctuation, no person's `^` or `=`.
MODEL_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/+()\-]{0,63}")


def _year(text: str) -> int:
    """Return the year of a date (PS3.5 6.2 DA, or its old form with dots), else 0."""
    digits = text.replace(".", "")
    year = int(digits[:4]) if re.fullmatch(r"[0-9]{8}", digits) else 0
    return year if 1895 <= year <= 2200 else 0


@dataclass(frozen=True, slots=True)
class Allowed:
    """An element that may leave, and what its value must be."""

    tags: tuple[Tag, ...]
    accept: Callable[[str], bool]


#: Field of `Metadata` -> the elements that fill it, the first with a value counting.
ALLOWED: dict[str, Allowed] = {
    "modality": Allowed((Tag.MODALITY,), MODALITIES.__contains__),
    "body_part": Allowed((Tag.BODY_PART_EXAMINED,), BODY_PARTS.__contains__),
    "laterality": Allowed((Tag.IMAGE_LATERALITY, Tag.LATERALITY), LATERALITIES.__contains__),
    "view": Allowed((Tag.VIEW_POSITION,), VIEWS.__contains__),
    "manufacturer_model": Allowed(
        (Tag.MANUFACTURER_MODEL_NAME,), lambda text: bool(MODEL_PATTERN.fullmatch(text))
    ),
}


def public_metadata(
    data_set: DataSet,
    form: PixelFormat,
    transfer_syntax: str,
    keyer: PatientKeyer | None,
    notes: Notes,
) -> Metadata:
    """Return what may be known of an instance outside.

    Parameters
    ----------
    data_set
        The instance.
    form
        Its pixels.
    transfer_syntax
        UID of a transfer syntax that was decoded.
    keyer
        Makes the patient key; without it the key is "".
    notes
        Takes a warning for each listed value that was not passed on.

    Raises
    ------
    InvalidInput
        UID_INVALID: SOP Instance UID is missing, or one of the UIDs breaks PS3.5 9.1.
    """
    texts = {field: _allowed(data_set, allowed, notes) for field, allowed in ALLOWED.items()}
    if data_set.text(Tag.BURNED_IN_ANNOTATION) == "YES":
        notes.warnings.append("(0028,0301) says that text is burned into the pixels")
    return Metadata(
        sop_instance_uid=_uid(data_set, Tag.SOP_INSTANCE_UID, required=True),
        study_instance_uid=_uid(data_set, Tag.STUDY_INSTANCE_UID),
        series_instance_uid=_uid(data_set, Tag.SERIES_INSTANCE_UID),
        modality=texts["modality"],
        body_part=texts["body_part"],
        laterality=texts["laterality"],
        view=texts["view"],
        manufacturer_model=texts["manufacturer_model"],
        study_year=_year(data_set.text(Tag.STUDY_DATE)),
        rows=form.rows,
        columns=form.columns,
        frames=form.frames,
        transfer_syntax=transfer_syntax,
        patient_key=_patient_key(data_set, keyer),
    )


def _allowed(data_set: DataSet, allowed: Allowed, notes: Notes) -> str:
    for tag in allowed.tags:
        text = data_set.text(tag)
        if text and allowed.accept(text):
            return text
        if text:
            notes.warnings.append(f"{tag_name(tag)} not passed on: not a value it may have")
    return ""


def _uid(data_set: DataSet, tag: Tag, *, required: bool = False) -> str:
    uid = data_set.text(tag)
    if not uid and not required:
        return ""
    if len(uid) > UID_LENGTH or not UID_PATTERN.fullmatch(uid):
        raise InvalidInput(
            Reason.UID_INVALID,
            f"{tag_name(tag)} is {'no valid UID (PS3.5 9.1)' if uid else 'missing'}.",
            remedy="Give the object UIDs of digits and dots, without leading zeros.",
            subject=tag_name(tag),
        )
    return uid


def _patient_key(data_set: DataSet, keyer: PatientKeyer | None) -> PatientKey:
    if keyer is None:
        return PatientKey("")
    return keyer.patient(data_set.text(Tag.ISSUER_OF_PATIENT_ID), data_set.text(Tag.PATIENT_ID))
