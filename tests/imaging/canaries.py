"""Files in which every place that can hold text holds a unique name."""

from __future__ import annotations

import io
import re
import traceback
from collections.abc import Mapping
from functools import cache
from struct import pack

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo
from pydicom._dicom_dict import DicomDictionary

from dafh.imaging.elements import IMPLICIT_VR, Tag
from dafh.imaging.reader import SHORT_VRS

TEXT_VRS = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC",
            "UI", "UR", "UT"}  # fmt: skip

#: Text elements without which there is no image: they are planted one at a time.
STRUCTURE = {
    Tag.SOP_INSTANCE_UID: b"2.25.1",
    Tag.STUDY_INSTANCE_UID: b"2.25.2",
    Tag.SERIES_INSTANCE_UID: b"2.25.3",
    Tag.PHOTOMETRIC_INTERPRETATION: b"MONOCHROME2",
    Tag.NUMBER_OF_FRAMES: b"1",
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
#: A look-up table of two entries: text beside it must not stay unread because it is broken.
TABLE = {Tag.LUT_DESCRIPTOR: pack("<3H", 2, 0, 8), Tag.LUT_DATA: pack("<2H", 0, 255)}
#: Sequences that are read.
SEQUENCES = sorted(tag for tag in Tag if IMPLICIT_VR[tag] == "SQ")
#: Elements that are read, and can be replaced by a name.
READ = sorted(tag for tag in Tag if tag >> 16 not in (0x0002, 0x7FE0))
RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8)
EXPLICIT_LITTLE = b"1.2.840.10008.1.2.1"


class Canaries:
    """Makes names that cannot occur by chance, and finds them."""

    def __init__(self) -> None:
        self.count = 0

    def next(self) -> bytes:
        """Return a name of the form of a person's that fits the shortest values."""
        self.count += 1
        return b"CNRY^%06d" % self.count

    @staticmethod
    def sings(text: str) -> bool:
        """Say whether a name, a part of one or its bytes in hexadecimal are in `text`."""
        return re.search(r"CNRY|[0-9]{6}\^|\^[0-9]{6}|434e5259", text, re.IGNORECASE) is not None


def element(tag: int, vr: str, value: bytes) -> bytes:
    """Return a data element in explicit VR little endian (PS3.5 7.1.2)."""
    value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    head = pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    if vr.encode() in SHORT_VRS:
        return head + pack("<H", len(value)) + value
    return head + pack("<HI", 0, len(value)) + value


def sequence(tag: int, inner: bytes) -> bytes:
    """Return a sequence of one item."""
    return element(tag, "SQ", pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner)


def private(canaries: Canaries, group: int) -> bytes:
    """Return private elements: a creator, values known and unknown, a sequence."""
    block = group << 16
    return b"".join(
        [
            element(block | 0x0010, "LO", canaries.next()),
            element(block | 0x1001, "LO", canaries.next()),
            element(block | 0x1002, "UN", canaries.next()),
            sequence(block | 0x1003, element(0x00100010, "PN", canaries.next())),
        ]
    )


def item_of(canaries: Canaries, tag: int, depth: int = 2) -> bytes:
    """Return the content of an item that holds a name wherever one is read, and where none is."""
    elements: dict[int, bytes] = {0x00100010: element(0x00100010, "PN", canaries.next())}
    elements[0x00091000] = private(canaries, 0x0009)
    if tag in SEQUENCES:
        for inner in Tag:
            if IMPLICIT_VR[inner] in TEXT_VRS:
                elements[inner] = element(inner, IMPLICIT_VR[inner], canaries.next())
        for inner in SEQUENCES if depth else ():
            elements[inner] = sequence(inner, item_of(canaries, inner, depth - 1))
        for inner, value in TABLE.items():
            elements[inner] = element(inner, IMPLICIT_VR[inner], value)
    return b"".join(elements[inner] for inner in sorted(elements))


@cache
def _everywhere() -> tuple[dict[int, bytes], int]:
    """Return an image with a name in every text element of the dictionary, private and nested.

    With it comes how many names there are.
    """
    canaries = Canaries()
    elements: dict[int, bytes] = {}
    for tag, row in DicomDictionary.items():
        if tag >> 16 in (0x0000, 0x0002, 0xFFFE) or tag >= 0x7FE00000:
            continue
        if row[0] in TEXT_VRS:
            elements[tag] = element(tag, row[0], canaries.next())
        elif row[0] == "SQ":
            elements[tag] = sequence(tag, item_of(canaries, tag))
    elements[0x00090010] = private(canaries, 0x0009)
    for tag, value in STRUCTURE.items():
        elements[tag] = element(tag, DicomDictionary[tag][0], value)
    for tag, number in NUMBERS.items():
        elements[tag] = element(tag, "US", pack("<H", number))
    elements[Tag.PIXEL_DATA] = element(Tag.PIXEL_DATA, "OB", bytes(range(64)))
    return elements, canaries.count


def planted(
    canaries: Canaries,
    changed: Mapping[Tag, bytes] | None = None,
    syntax: bytes = EXPLICIT_LITTLE,
    pixels: bytes | None = None,
    *,
    only_read: bool = False,
) -> bytes:
    """Return an image with a name in every text element of the dictionary, private and nested.

    Parameters
    ----------
    canaries
        Makes and counts the names.
    changed
        Whole elements in the place of the usual ones.
    syntax, pixels
        Transfer Syntax UID, and the pixel data element; 8 x 8 of 8 bit by default.
    only_read
        Leave out sequences, and elements that no reader of ours looks at.
    """
    elements, count = _everywhere()
    canaries.count += count
    kept = {
        tag: whole
        for tag, whole in elements.items()
        if not only_read or (tag in set(Tag) and tag not in SEQUENCES)
    }
    kept |= {int(tag): whole for tag, whole in (changed or {}).items()}
    if pixels:
        kept[Tag.PIXEL_DATA] = pixels
    meta = element(0x00020010, "UI", syntax)
    meta += element(0x00020016, "AE", canaries.next()) + element(0x00020102, "OB", canaries.next())
    body = b"".join(part for _, part in sorted(kept.items()))
    return canaries.next().ljust(128, b"\0") + b"DICM" + meta + body


def encapsulated(stream: bytes) -> bytes:
    """Return a pixel data element of one fragment (PS3.5 A.4)."""
    stream += b"\0" * (len(stream) % 2)
    head = pack("<HH", 0x7FE0, 0x0010) + b"OB\0\0" + b"\xff" * 4
    items = pack("<HHI", 0xFFFE, 0xE000, 0) + pack("<HHI", 0xFFFE, 0xE000, len(stream)) + stream
    return head + items + pack("<HHI", 0xFFFE, 0xE0DD, 0)


def commented(canaries: Canaries, stream: bytes) -> bytes:
    """Return a JPEG or JPEG-LS stream with names in a comment and all application segments."""
    segments = b"".join(
        bytes((0xFF, marker)) + pack(">H", 2 + 11 + 40) + canaries.next() + bytes(40)
        for marker in (0xFE, *range(0xE0, 0xF0))
    )
    return stream[:2] + segments + stream[2:]


def commented_2000(canaries: Canaries, stream: bytes) -> bytes:
    """Return a JPEG 2000 codestream with a name in a comment (ITU-T T.800 A.9.2), behind SIZ."""
    behind = 4 + int.from_bytes(stream[4:6], "big")
    comment = b"\xff\x64" + pack(">HH", 4 + 11, 1) + canaries.next()
    return stream[:behind] + comment + stream[behind:]


def png(canaries: Canaries) -> bytes:
    """Return a PNG file with names in all kinds of text chunks, the profile and Exif."""
    info = PngInfo()
    info.add_text("Patient", canaries.next().decode())
    info.add_text(canaries.next().decode(), "x", zip=True)
    info.add_itxt("Patient", canaries.next().decode(), "en", canaries.next().decode())
    out = io.BytesIO()
    picture = Pillow.fromarray(RAMP)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\0" + canaries.next()
    picture.save(out, "PNG", pnginfo=info, exif=exif, icc_profile=canaries.next() * 20)
    return out.getvalue()


def jpeg(canaries: Canaries, values: NDArray[np.uint8] = RAMP) -> bytes:
    """Return a JPEG file with names in a comment and all application segments."""
    out = io.BytesIO()
    Pillow.fromarray(values).save(out, "JPEG")
    return commented(canaries, out.getvalue())


def said(error: BaseException) -> str:
    """Return all that a program could print of an error, and of those that led to it."""
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    texts = [f"{one!r} {one} {vars(one)} {one.__reduce__()}" for one in chain]
    return " ".join([*texts, *traceback.format_exception(error)])
