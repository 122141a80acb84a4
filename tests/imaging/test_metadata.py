"""The allow-list: what may be known of an instance outside, and what is refused."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from dafh.errors import InvalidInput, Reason
from dafh.imaging.decode import decode
from dafh.imaging.elements import IMPLICIT_VR, Tag
from dafh.imaging.image import Metadata
from dafh.imaging.limits import Policy
from dafh.imaging.metadata import ALLOWED, is_product, is_uid, study_year
from dafh.imaging.refusal import tag_name
from dafh.imaging.terms import BODY_PARTS, REGIONS

from .instances import MakeInstance, write_instance

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "imaging.md"


def test_every_field_that_leaves_has_a_row_with_its_reason() -> None:
    assert set(ALLOWED) == {field.name for field in fields(Metadata)}
    assert all(row.reason and row.tags for row in ALLOWED.values())


@pytest.mark.parametrize(
    "uid",
    ["1.2.3", "999.999.01.23.45.6789", "2.25.0", "0.00", "1." + "9" * 62],
)
def test_uids_of_the_field_are_taken(uid: str) -> None:
    assert is_uid(uid)


@pytest.mark.parametrize(
    "uid", ["", "1", "1.", ".1", "1..2", "1.2.secret", "1.2\n", "1 .2", "1.٣", "1." + "9" * 63]
)
def test_what_is_no_uid_is_not_taken(uid: str) -> None:
    assert not is_uid(uid)


@given(st.text(max_size=80))
def test_a_uid_holds_nothing_but_digits_and_dots(text: str) -> None:
    if is_uid(text):
        assert set(text) <= set("0123456789.")


def test_a_uid_with_leading_zeros_comes_with_a_warning(make_instance: MakeInstance) -> None:
    plain = make_instance(StudyInstanceUID="1.92.3")
    image = decode(plain.replace(b"1.92.3", b"1.02.3"), side=16)
    assert image.metadata.study_instance_uid == "1.02.3"
    assert any("(0020,000D)" in warning for warning in image.warnings)
    assert not decode(plain, side=16).warnings


@pytest.mark.parametrize("damage", [b"1.DOE3", b"1..2.3", b"1.2.3.", b".12.34"])
def test_any_other_uid_is_refused_and_not_repeated(
    damage: bytes, make_instance: MakeInstance
) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode(make_instance(StudyInstanceUID="1.92.3").replace(b"1.92.3", damage), side=16)
    assert (caught.value.reason, caught.value.subject) == (Reason.UID_INVALID, "(0020,000D)")
    assert damage.decode() not in str(caught.value)


@pytest.mark.parametrize(
    "model",
    [
        "SOMATOM Force",
        "MAGNETOM Vida",
        "Discovery ST",
        "LightSpeed VCT",
        "Achieva dStream",
        "Optima CT660",
        "iU22",
        "LOGIQ 700",
        "Signa HDxt",
        "GENESIS_ZEUS",
        "SIGNA Premier 3.0T",
        "SSD-4000",
    ],
)
def test_product_names_pass(model: str, make_instance: MakeInstance) -> None:
    image = decode(make_instance(ManufacturerModelName=model), side=16)
    assert image.metadata.manufacturer_model == model


@pytest.mark.parametrize(
    "model",
    [
        "Vida Aurora",
        "DOE^JANE",
        "CNRY000123",
        "SOMATOM Force of Jane Doe",
        "Discovery DOE",
        "Discovery 1234567",
        "Scanner of ward 7",
        "MAGNETOM 19700101",
        "SIGNA 1970 0101",
        "SIGNA JD-1970-0101",
        "MAGNETOM\u2028Vida",
        " ",
        "-",
    ],
)
def test_any_other_text_for_a_product_is_dropped(model: str) -> None:
    assert not is_product(model)


@given(st.text(max_size=64))
def test_free_text_is_no_product(text: str) -> None:
    assert not is_product(text)
    assert not is_product(f"Discovery {text}qqq{text}")


def test_a_product_that_is_dropped_is_no_reason_to_warn(make_instance: MakeInstance) -> None:
    image = decode(make_instance(ManufacturerModelName="Own build of Jane Doe"), side=16)
    assert image.metadata.manufacturer_model == ""
    assert not image.warnings


@pytest.mark.parametrize(
    ("date", "year"),
    [
        ("20200229", 2020),
        ("2020.02.29", 2020),
        ("", 0),
        ("2020", 0),
        ("17000101", 0),
        ("DOE^JANE", 0),
        ("٢٠٢٠٠٢٢٩", 0),
    ],
)
def test_of_the_study_date_the_year_is_left(date: str, year: int) -> None:
    assert study_year(date) == year


@pytest.mark.parametrize(
    ("tag", "keyword"),
    [
        ("(0028,0301)", "BurnedInAnnotation"),
        ("(0028,0302)", "RecognizableVisualFeatures"),
    ],
)
def test_pixels_that_tell_of_the_patient_are_warned_of_or_refused(
    tag: str, keyword: str, make_instance: MakeInstance
) -> None:
    data = make_instance(**{keyword: "YES"})
    assert any(tag in warning for warning in decode(data, side=16).warnings)
    strict = Policy(refuse_burned_in=True)
    with pytest.raises(InvalidInput) as caught:
        decode(data, side=16, policy=strict)
    assert (caught.value.reason, caught.value.subject) == (Reason.BURNED_IN_ANNOTATION, tag)
    assert caught.value.remedy
    clean = decode(make_instance(**{keyword: "NO"}), side=16, policy=strict)
    assert not clean.warnings


def region(code: str) -> Dataset:
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = code, "SCT", "Jane Doe"
    return made


def test_a_coded_region_stands_in_for_the_body_part(make_instance: MakeInstance) -> None:
    assert set(REGIONS.values()) <= BODY_PARTS
    root = make_instance(AnatomicRegionSequence=[region("DOE^JANE"), region("39607008")])
    assert decode(root, side=16).metadata.body_part == "LUNG"
    both = make_instance(AnatomicRegionSequence=[region("39607008")], BodyPartExamined="CHEST")
    assert decode(both, side=16).metadata.body_part == "CHEST"
    unknown = make_instance(AnatomicRegionSequence=[region("DOE^JANE")])
    assert decode(unknown, side=16).metadata.body_part == ""


def test_anatomy_of_functional_groups_is_that_of_the_first_frame() -> None:
    anatomy, group, other = Dataset(), Dataset(), Dataset()
    anatomy.AnatomicRegionSequence = [region("T-A0100")]
    anatomy.FrameLaterality = "L"
    group.FrameAnatomySequence = [anatomy]
    values = np.zeros((2, 8, 8), np.uint8)
    data = write_instance(
        values[0],
        NumberOfFrames=2,
        PixelData=values.tobytes(),
        PerFrameFunctionalGroupsSequence=[group, other],
    )
    found = decode(data, side=8, frame=2).metadata
    assert (found.body_part, found.laterality) == ("BRAIN", "L")


TEXT_VRS = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "SH", "TM"}
CANARY = b"CNRY Jane 0123 "


def planted(sequence: Tag, modality: str) -> bytes:
    """Return an image with a canary in every text element of one sequence that is read."""
    inner = b"".join(
        element(tag, IMPLICIT_VR[tag], CANARY) for tag in Tag if IMPLICIT_VR[tag] in TEXT_VRS
    )
    item = b"\xfe\xff\x00\xe0" + len(inner).to_bytes(4, "little") + inner
    data = write_instance(Modality=modality, Units="BQML", CorrectedImage=["DECY", "ATTN"])
    place = data.rindex(b"\xe0\x7f\x10\x00OW")
    return data[:place] + element(sequence, "SQ", item) + data[place:]


def element(tag: int, vr: str, value: bytes) -> bytes:
    value += b" " * (len(value) % 2)
    head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + vr.encode()
    if vr == "SQ":
        return head + b"\0\0" + len(value).to_bytes(4, "little") + value
    return head + len(value).to_bytes(2, "little") + value


@pytest.mark.parametrize("modality", ["PT", "CT", "DX"])
@pytest.mark.parametrize("sequence", [tag for tag in Tag if IMPLICIT_VR[tag] == "SQ"])
def test_text_in_the_sequences_that_are_read_stays_inside(sequence: Tag, modality: str) -> None:
    data = planted(sequence, modality)
    for window in (1, 2, "CNRY"):
        try:
            told = repr(decode(data, side=16, window=window))
        except InvalidInput as error:
            told = f"{error!r} {error} {vars(error)}"
        assert not re.search("CNRY|Jane|0123", told)


def test_the_document_has_the_allow_list_as_it_is() -> None:
    lines = DOCUMENT.read_text().splitlines()
    for field, allowed in ALLOWED.items():
        tags = ", ".join(tag_name(tag) for tag in allowed.tags)
        assert f"| {field} | {tags} | {allowed.action} | {allowed.reason} |" in lines
    assert sum(line.startswith("| ") for line in lines) == len(ALLOWED) + 1
