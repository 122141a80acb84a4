"""The allow-list: the only elements of a file whose content leaves this package.

Everything else is dropped, and so is a listed element whose value is not of the form it must
have: free text can hold a name anywhere. The actions are those of the Basic Application Level
Confidentiality Profile, PS3.15 Table E.1-1 (X remove, Z empty, U replace UIDs, C clean, K keep),
with the option, if one is used, that allows more.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from dafh.errors import InvalidInput, Reason
from dafh.imaging.elements import DataSet, Tag
from dafh.imaging.image import Metadata, PatientKey, PatientKeyer
from dafh.imaging.notes import Notes, Scopes
from dafh.imaging.pixels import PixelFormat
from dafh.imaging.refusal import tag_name
from dafh.imaging.terms import (
    BODY_PARTS,
    LATERALITIES,
    MODALITIES,
    PRODUCT_LINES,
    PRODUCT_WORDS,
    REGIONS,
    VIEWS,
)

#: UIDs that are taken: digits and dots, at most 64 characters, no empty component. PS3.5 9.1
#: forbids leading zeros too, but archives are full of such UIDs and hits must name what is there.
UID_PATTERN = re.compile(r"[0-9]+(\.[0-9]+)+")
UID_LENGTH = 64

LEADING_ZERO = re.compile(r"(^|\.)0[0-9]")

#: The part of a product's name that tells variants apart: "660", "CT660", "1.5T".
DESIGNATION = re.compile(r"[A-Z]{0,2}[0-9]{1,4}(\.[0-9])?[A-Z]{0,2}")
#: More of them, as in "SIGNA 1961 0405", can be a date or a number of the patient.
MOST_DESIGNATIONS = 1

PSEUDONYM = re.compile(r"[0-9a-f]{64}")

#: Years of study that are believed: X-rays were found in 1895.
YEARS = (1895, 2200)


def study_year(text: str) -> int:
    """Return the year of a date (PS3.5 6.2 DA, or its old form with dots), else 0."""
    digits = text.replace(".", "")
    year = int(digits[:4]) if re.fullmatch(r"[0-9]{8}", digits) else 0
    return year if YEARS[0] <= year <= YEARS[1] else 0


def is_uid(text: str) -> bool:
    """Say whether a text is a UID as `UID_PATTERN` describes it."""
    return len(text) <= UID_LENGTH and bool(UID_PATTERN.fullmatch(text))


def is_product(text: str) -> bool:
    """Say whether a text is a product line, followed by known words and a short designation."""
    first, *others = re.split(r"[ -]+", text.upper())
    unknown = [word for word in others if word not in PRODUCT_WORDS]
    return (
        first in PRODUCT_LINES
        and len(unknown) <= MOST_DESIGNATIONS
        and all(DESIGNATION.fullmatch(word) for word in unknown)
    )


def is_count(text: str) -> bool:
    """Say whether a text is a whole number."""
    return text.isascii() and text.isdecimal()


@dataclass(frozen=True, slots=True)
class Allowed:
    """A row of the allow-list."""

    #: The elements; where one value is passed on, the first that has one counts.
    tags: tuple[Tag, ...]
    #: Whether a text has the form of what may leave.
    accept: Callable[[str], bool]
    #: What PS3.15 Table E.1-1 asks for; "" where it does not list the element.
    action: str
    reason: str
    #: Whether a value that is dropped is worth a warning.
    warn: bool = True


#: Field of `Metadata` -> what may fill it.
ALLOWED: dict[str, Allowed] = {
    "sop_instance_uid": Allowed(
        (Tag.SOP_INSTANCE_UID,),
        is_uid,
        "U; Retain UIDs Option: K",
        "Names the case: a hit that cannot be opened is worth nothing.",
    ),
    "study_instance_uid": Allowed(
        (Tag.STUDY_INSTANCE_UID,),
        is_uid,
        "U; Retain UIDs Option: K",
        "Opens a hit, and keeps the query's own study out of the answer.",
    ),
    "series_instance_uid": Allowed(
        (Tag.SERIES_INSTANCE_UID,),
        is_uid,
        "U; Retain UIDs Option: K",
        "Opens a hit, and bounds the hits of one series.",
    ),
    "modality": Allowed(
        (Tag.MODALITY,), MODALITIES.__contains__, "", "A term of a closed list; a filter."
    ),
    "body_part": Allowed(
        (Tag.BODY_PART_EXAMINED,),
        BODY_PARTS.__contains__,
        "",
        "A term of a closed list, or a code for one (0008,2218); a filter.",
    ),
    "laterality": Allowed(
        (Tag.IMAGE_LATERALITY, Tag.FRAME_LATERALITY, Tag.LATERALITY),
        LATERALITIES.__contains__,
        "",
        "A term of a closed list.",
    ),
    "view": Allowed((Tag.VIEW_POSITION,), VIEWS.__contains__, "", "A term of a closed list."),
    "manufacturer_model": Allowed(
        (Tag.MANUFACTURER_MODEL_NAME,),
        is_product,
        "",
        "Free text, of which only known product names pass: they name a type of device, not one "
        "device. Serial numbers and station names are not read.",
        warn=False,
    ),
    "study_year": Allowed(
        (Tag.STUDY_DATE,),
        lambda text: is_count(text) and len(text) == 4,
        "Z; Retain Longitudinal Temporal Information with Modified Dates Option: C",
        "Cleaned to the year, which many patients share.",
    ),
    "rows": Allowed((Tag.ROWS,), is_count, "", "Geometry, a number."),
    "columns": Allowed((Tag.COLUMNS,), is_count, "", "Geometry, a number."),
    "frames": Allowed((Tag.NUMBER_OF_FRAMES,), is_count, "", "Geometry, a number."),
    "transfer_syntax": Allowed(
        (Tag.TRANSFER_SYNTAX_UID,), is_uid, "", "A UID of PS3.6 Annex A that was decoded."
    ),
    "patient_key": Allowed(
        (Tag.ISSUER_OF_PATIENT_ID, Tag.PATIENT_ID),
        lambda text: bool(PSEUDONYM.fullmatch(text)),
        "X and Z",
        "Never the elements themselves: an HMAC-SHA-256 of them under a key that stays in the "
        "house, to tell patients apart.",
    ),
}

#: Elements that say YES to a danger in the pixels -> what it is (PS3.3 C.7.6.1). The profile's
#: Clean Pixel Data and Clean Recognizable Visual Features Options are the remedy.
EXPOSURES = {
    Tag.BURNED_IN_ANNOTATION: "text is burned into the pixels",
    Tag.RECOGNIZABLE_VISUAL_FEATURES: "the pixels show features that make the patient known",
}


def public_metadata(
    data_set: DataSet,
    form: PixelFormat,
    transfer_syntax: str,
    keyer: PatientKeyer | None,
    notes: Notes,
    *,
    refuse_burned_in: bool = False,
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
        Takes a warning for each listed value that was not passed on, and for each of `EXPOSURES`.
    refuse_burned_in
        Refuse an instance that one of `EXPOSURES` is true of.

    Raises
    ------
    InvalidInput
        UID_INVALID: SOP Instance UID is missing, or a UID is not of digits and dots;
        BURNED_IN_ANNOTATION.
    """
    check_exposure(data_set, notes, refuse=refuse_burned_in)
    # Anatomy of a multi-frame instance is that of its first frame.
    scopes = Scopes(data_set, 1)
    return Metadata(
        sop_instance_uid=_uid(data_set, "sop_instance_uid", notes, required=True),
        study_instance_uid=_uid(data_set, "study_instance_uid", notes),
        series_instance_uid=_uid(data_set, "series_instance_uid", notes),
        modality=_text(scopes, "modality", notes),
        body_part=_text(scopes, "body_part", notes) or _region(scopes),
        laterality=_text(scopes, "laterality", notes),
        view=_text(scopes, "view", notes),
        manufacturer_model=_text(scopes, "manufacturer_model", notes),
        study_year=study_year(data_set.text(Tag.STUDY_DATE)),
        rows=form.rows,
        columns=form.columns,
        frames=form.frames,
        transfer_syntax=transfer_syntax,
        patient_key=_patient_key(data_set, keyer),
    )


def check_exposure(data_set: DataSet, notes: Notes, *, refuse: bool) -> None:
    """Warn of what the pixels themselves may tell of the patient, or refuse it.

    Raises
    ------
    InvalidInput
        BURNED_IN_ANNOTATION, where `refuse` is set.
    """
    for tag, exposure in EXPOSURES.items():
        if data_set.text(tag).upper() != "YES":
            continue
        if refuse:
            raise InvalidInput(
                Reason.BURNED_IN_ANNOTATION,
                f"{tag_name(tag)} says that {exposure}, which is refused here.",
                remedy="Send an image without, or have the operator allow such images.",
                subject=tag_name(tag),
            )
        notes.warnings.append(f"{tag_name(tag)} says that {exposure}")


def _text(scopes: Scopes, field: str, notes: Notes) -> str:
    allowed = ALLOWED[field]
    for tag in allowed.tags:
        text = scopes.having(tag).text(tag)
        if text and allowed.accept(text):
            return text
        if text and allowed.warn:
            notes.warnings.append(f"{tag_name(tag)} not passed on: not a value it may have")
    return ""


def _region(scopes: Scopes) -> str:
    """Return the body part that Anatomic Region Sequence (0008,2218) codes, "" if none is known.

    Digital X-ray and enhanced images may have it in place of Body Part Examined (PS3.3 C.8.11.2,
    C.7.6.16.2.8).
    """
    items = scopes.having(Tag.ANATOMIC_REGION_SEQUENCE).items(Tag.ANATOMIC_REGION_SEQUENCE)
    codes = (item.text(Tag.CODE_VALUE) for item in items)
    return next((REGIONS[code] for code in codes if code in REGIONS), "")


def _uid(data_set: DataSet, field: str, notes: Notes, *, required: bool = False) -> str:
    (tag,) = ALLOWED[field].tags
    uid = data_set.text(tag)
    if not uid and not required:
        return ""
    if not ALLOWED[field].accept(uid):
        raise InvalidInput(
            Reason.UID_INVALID,
            f"{tag_name(tag)} is {'no valid UID (PS3.5 9.1)' if uid else 'missing'}.",
            remedy=f"Give the object UIDs of digits and dots, at most {UID_LENGTH} characters.",
            subject=tag_name(tag),
        )
    if LEADING_ZERO.search(uid):
        notes.warnings.append(f"{tag_name(tag)} taken with leading zeros, against PS3.5 9.1")
    return uid


def _patient_key(data_set: DataSet, keyer: PatientKeyer | None) -> PatientKey:
    if keyer is None:
        return PatientKey("")
    return keyer.patient(data_set.text(Tag.ISSUER_OF_PATIENT_ID), data_set.text(Tag.PATIENT_ID))
