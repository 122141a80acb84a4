"""Nothing of the patient leaves: unique names planted everywhere are found nowhere."""

from __future__ import annotations

import io
import logging
import re

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo
from pydicom._dicom_dict import DicomDictionary

from dafh.errors import InvalidInput
from dafh.imaging.decode import decode
from dafh.imaging.elements import Tag
from dafh.imaging.image import PatientKeyer
from dafh.imaging.metadata import ALLOWED
from dafh.imaging.phantom import Phantom
from dafh.imaging.reader import SHORT_VRS

TEXT_VRS = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC",
            "UI", "UR", "UT"}  # fmt: skip
KEYER = PatientKeyer(b"k" * 32, "default")

#: Text elements without which there is no image: they are planted one at a time, below.
STRUCTURE = {
    Tag.SOP_INSTANCE_UID: b"2.25.1",
    Tag.STUDY_INSTANCE_UID: b"2.25.2\0",
    Tag.SERIES_INSTANCE_UID: b"2.25.3\0",
    Tag.PHOTOMETRIC_INTERPRETATION: b"MONOCHROME2 ",
    Tag.NUMBER_OF_FRAMES: b"1 ",
    Tag.SPECIFIC_CHARACTER_SET: b"ISO_IR 192",
}
NUMBERS = {
    Tag.SAMPLES_PER_PIXEL: 1,
    Tag.ROWS: 8,
    Tag.COLUMNS: 8,
    Tag.BITS_ALLOCATED: 8,
    Tag.BITS_STORED: 8,
    Tag.HIGH_BIT: 7,
    Tag.PIXEL_REPRESENTATION: 0,
}


class Canaries:
    """Makes names that cannot occur by chance, and finds them."""

    def __init__(self) -> None:
        self.count = 0

    def next(self) -> bytes:
        self.count += 1
        # Fits the shortest values, and has the form of a person's name.
        return b"CNRY^%06d" % self.count

    @staticmethod
    def sings(text: str) -> bool:
        return re.search(r"CNRY|[0-9]{6}\^|\^[0-9]{6}", text) is not None


def element(tag: int, vr: str, value: bytes) -> bytes:
    value += b" " * (len(value) % 2)
    head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + vr.encode()
    if vr.encode() in SHORT_VRS:
        return head + len(value).to_bytes(2, "little") + value
    return head + b"\0\0" + len(value).to_bytes(4, "little") + value


def planted(canaries: Canaries, structure: dict[Tag, bytes]) -> bytes:
    """Return an image with a canary in every text element of the dictionary, private and nested."""
    elements: dict[int, bytes] = {}
    for tag, row in DicomDictionary.items():
        if tag >> 16 in (0x0000, 0x0002, 0xFFFE) or tag >= 0x7FE00000:
            continue
        if row[0] in TEXT_VRS:
            elements[tag] = element(tag, row[0], canaries.next())
        elif row[0] == "SQ" and tag not in list(Tag):
            inner = element(0x00100010, "PN", canaries.next())
            inner += element(0x00091001, "LO", canaries.next())
            item = b"\xfe\xff\x00\xe0" + len(inner).to_bytes(4, "little") + inner
            elements[tag] = element(tag, "SQ", item)
    elements[0x00090010] = element(0x00090010, "LO", canaries.next())
    elements[0x00091001] = element(0x00091001, "UN", canaries.next())
    for tag, value in structure.items():
        elements[tag] = element(tag, DicomDictionary[tag][0], value)
    for tag, number in NUMBERS.items():
        elements[tag] = element(tag, "US", number.to_bytes(2, "little"))
    pixels = np.arange(64, dtype=np.uint8).tobytes()
    elements[Tag.PIXEL_DATA] = element(Tag.PIXEL_DATA, "OB", pixels)
    meta = element(0x00020010, "UI", b"1.2.840.10008.1.2.1\0")
    meta += element(0x00020016, "AE", canaries.next()) + element(0x00020102, "OB", canaries.next())
    body = b"".join(elements[tag] for tag in sorted(elements))
    return canaries.next().ljust(128, b"\0") + b"DICM" + meta + body


def said(error: BaseException) -> str:
    chain = [error, error.__cause__, None if error.__suppress_context__ else error.__context__]
    return " ".join(f"{one!r} {one} {vars(one)}" for one in chain if one is not None)


def test_canaries_in_every_text_element_stay_inside(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    canaries = Canaries()
    data = planted(canaries, STRUCTURE)
    assert canaries.count > 4000
    image = decode(data, side=8, keyer=KEYER)
    assert image.metadata.patient_key
    assert not canaries.sings(f"{image!r} {image.metadata} {image.applied} {image.warnings}")
    for length in range(200, len(data), 2999):
        with pytest.raises(InvalidInput) as caught:
            decode(data[:length], side=8, keyer=KEYER)
        assert not canaries.sings(said(caught.value))
    assert not canaries.sings(caplog.text)
    assert not canaries.sings("".join(capfd.readouterr()))


@pytest.mark.parametrize("tag", [tag for tag in STRUCTURE if tag != Tag.SPECIFIC_CHARACTER_SET])
def test_a_canary_where_structure_should_be_is_not_quoted(tag: Tag) -> None:
    canaries = Canaries()
    data = planted(canaries, STRUCTURE | {tag: canaries.next()})
    with pytest.raises(InvalidInput) as caught:
        decode(data, side=8, keyer=KEYER)
    assert not canaries.sings(said(caught.value))


def test_a_canary_for_transfer_syntax_is_not_quoted() -> None:
    canaries = Canaries()
    syntax = canaries.next() + b"\0" * 9
    data = planted(canaries, STRUCTURE).replace(b"1.2.840.10008.1.2.1\0", syntax)
    with pytest.raises(InvalidInput) as caught:
        decode(data, side=8)
    assert not canaries.sings(said(caught.value))


def test_text_in_png_and_jpeg_stays_inside(capfd: pytest.CaptureFixture[str]) -> None:
    canaries = Canaries()
    picture = Pillow.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    info = PngInfo()
    info.add_text("Patient", canaries.next().decode())
    png, jpeg = io.BytesIO(), io.BytesIO()
    picture.save(png, "PNG", pnginfo=info)
    picture.save(jpeg, "JPEG", comment=canaries.next())
    for data in (png.getvalue(), jpeg.getvalue()):
        assert b"CNRY" in data
        image = decode(data, side=8)
        assert not canaries.sings(f"{image!r}")
        with pytest.raises(InvalidInput) as caught:
            decode(data[:-20], side=8)
        assert not canaries.sings(said(caught.value))
    assert not canaries.sings("".join(capfd.readouterr()))


@pytest.mark.parametrize("field", ALLOWED)
def test_a_listed_element_passes_only_what_it_may_hold(field: str) -> None:
    assert not ALLOWED[field].accept("DOE^JANE")
    assert not ALLOWED[field].accept("")
    closed = {"modality": "CT", "body_part": "CHEST", "laterality": "L", "view": "MLO"}
    assert ALLOWED[field].accept(closed.get(field, "SOMATOM Force"))
    if field in closed:
        assert not ALLOWED[field].accept("JANE")


def test_the_patient_key_follows_key_tenant_issuer_and_id(sample: list[Phantom]) -> None:
    keys: dict[int, set[str]] = {}
    for phantom in sample:
        image = decode(phantom.data, side=8, keyer=KEYER)
        keys.setdefault(phantom.patient, set()).add(image.metadata.patient_key)
        assert "PHANTOM" not in repr(image)
    assert all(len(one) == 1 for one in keys.values())
    assert len(set.union(*keys.values())) == len(keys) > 5
    other = PatientKeyer(b"o" * 32, "default")
    elsewhere = PatientKeyer(b"k" * 32, "elsewhere")
    own = {
        decode(sample[0].data, side=8, keyer=keyer).metadata.patient_key
        for keyer in (KEYER, other, elsewhere, None)
    }
    assert len(own) == 4
    assert "" in own
