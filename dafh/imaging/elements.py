"""The data elements that are read from a DICOM file, and access to their values.

`Tag` is the whole list: an element that is not on it is stepped over and never held.
"""

from __future__ import annotations

import math
import struct
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from pydicom.charset import python_encoding

from dafh.imaging.refusal import malformed


class Tag(IntEnum):
    """Data elements by their names in PS3.6."""

    TRANSFER_SYNTAX_UID = 0x00020010
    DIRECTORY_RECORD_SEQUENCE = 0x00041220
    REFERENCED_FILE_ID = 0x00041500
    SPECIFIC_CHARACTER_SET = 0x00080005
    IMAGE_TYPE = 0x00080008
    SOP_CLASS_UID = 0x00080016
    SOP_INSTANCE_UID = 0x00080018
    STUDY_DATE = 0x00080020
    SERIES_DATE = 0x00080021
    ACQUISITION_DATE = 0x00080022
    SERIES_TIME = 0x00080031
    ACQUISITION_TIME = 0x00080032
    MODALITY = 0x00080060
    CODE_VALUE = 0x00080100
    SERIES_DESCRIPTION = 0x0008103E
    MANUFACTURER_MODEL_NAME = 0x00081090
    REFERENCED_SERIES_SEQUENCE = 0x00081115
    REFERENCED_SOP_INSTANCE_UID = 0x00081155
    REFERENCED_SOP_SEQUENCE = 0x00081199
    ANATOMIC_REGION_SEQUENCE = 0x00082218
    PATIENT_ID = 0x00100020
    ISSUER_OF_PATIENT_ID = 0x00100021
    PATIENT_WEIGHT = 0x00101030
    BODY_PART_EXAMINED = 0x00180015
    RADIOPHARMACEUTICAL_START_TIME = 0x00181072
    RADIONUCLIDE_TOTAL_DOSE = 0x00181074
    RADIONUCLIDE_HALF_LIFE = 0x00181075
    RADIOPHARMACEUTICAL_START_DATETIME = 0x00181078
    IMAGER_PIXEL_SPACING = 0x00181164
    NOMINAL_SCANNED_PIXEL_SPACING = 0x00182010
    VIEW_POSITION = 0x00185101
    STUDY_INSTANCE_UID = 0x0020000D
    SERIES_INSTANCE_UID = 0x0020000E
    INSTANCE_NUMBER = 0x00200013
    LATERALITY = 0x00200060
    IMAGE_LATERALITY = 0x00200062
    FRAME_ANATOMY_SEQUENCE = 0x00209071
    FRAME_LATERALITY = 0x00209072
    SAMPLES_PER_PIXEL = 0x00280002
    PHOTOMETRIC_INTERPRETATION = 0x00280004
    PLANAR_CONFIGURATION = 0x00280006
    NUMBER_OF_FRAMES = 0x00280008
    ROWS = 0x00280010
    COLUMNS = 0x00280011
    PIXEL_SPACING = 0x00280030
    PIXEL_ASPECT_RATIO = 0x00280034
    CORRECTED_IMAGE = 0x00280051
    BITS_ALLOCATED = 0x00280100
    BITS_STORED = 0x00280101
    HIGH_BIT = 0x00280102
    PIXEL_REPRESENTATION = 0x00280103
    PIXEL_PADDING_VALUE = 0x00280120
    PIXEL_PADDING_RANGE_LIMIT = 0x00280121
    FLOAT_PADDING_VALUE = 0x00280122
    DOUBLE_FLOAT_PADDING_VALUE = 0x00280123
    FLOAT_PADDING_RANGE_LIMIT = 0x00280124
    DOUBLE_FLOAT_PADDING_RANGE_LIMIT = 0x00280125
    BURNED_IN_ANNOTATION = 0x00280301
    RECOGNIZABLE_VISUAL_FEATURES = 0x00280302
    PIXEL_INTENSITY_RELATIONSHIP = 0x00281040
    WINDOW_CENTER = 0x00281050
    WINDOW_WIDTH = 0x00281051
    RESCALE_INTERCEPT = 0x00281052
    RESCALE_SLOPE = 0x00281053
    RESCALE_TYPE = 0x00281054
    WINDOW_EXPLANATION = 0x00281055
    VOI_LUT_FUNCTION = 0x00281056
    RED_PALETTE_DESCRIPTOR = 0x00281101
    GREEN_PALETTE_DESCRIPTOR = 0x00281102
    BLUE_PALETTE_DESCRIPTOR = 0x00281103
    RED_PALETTE_DATA = 0x00281201
    GREEN_PALETTE_DATA = 0x00281202
    BLUE_PALETTE_DATA = 0x00281203
    SEGMENTED_RED_PALETTE_DATA = 0x00281221
    SEGMENTED_GREEN_PALETTE_DATA = 0x00281222
    SEGMENTED_BLUE_PALETTE_DATA = 0x00281223
    MODALITY_LUT_SEQUENCE = 0x00283000
    LUT_DESCRIPTOR = 0x00283002
    LUT_EXPLANATION = 0x00283003
    MODALITY_LUT_TYPE = 0x00283004
    LUT_DATA = 0x00283006
    VOI_LUT_SEQUENCE = 0x00283010
    REPRESENTATIVE_FRAME_NUMBER = 0x00286010
    PIXEL_MEASURES_SEQUENCE = 0x00289110
    FRAME_VOI_LUT_SEQUENCE = 0x00289132
    PIXEL_VALUE_TRANSFORMATION_SEQUENCE = 0x00289145
    CURRENT_EVIDENCE_SEQUENCE = 0x0040A375
    RADIOPHARMACEUTICAL_INFORMATION_SEQUENCE = 0x00540016
    UNITS = 0x00541001
    DECAY_CORRECTION = 0x00541102
    PRESENTATION_LUT_SHAPE = 0x20500020
    SHARED_FUNCTIONAL_GROUPS = 0x52009229
    PER_FRAME_FUNCTIONAL_GROUPS = 0x52009230
    EXTENDED_OFFSET_TABLE = 0x7FE00001
    EXTENDED_OFFSET_TABLE_LENGTHS = 0x7FE00002
    FLOAT_PIXEL_DATA = 0x7FE00008
    DOUBLE_FLOAT_PIXEL_DATA = 0x7FE00009
    PIXEL_DATA = 0x7FE00010


TAGS = frozenset(int(tag) for tag in Tag)

#: Value representations for files that carry none (implicit VR) or UN; PS3.6 6. "US" stands for
#: "US or SS" as well: who reads such a value knows its sign.
IMPLICIT_VR: dict[int, str] = {
    **dict.fromkeys(TAGS, "CS"),
    Tag.TRANSFER_SYNTAX_UID: "UI",
    Tag.DIRECTORY_RECORD_SEQUENCE: "SQ",
    Tag.SOP_CLASS_UID: "UI",
    Tag.SOP_INSTANCE_UID: "UI",
    Tag.STUDY_INSTANCE_UID: "UI",
    Tag.SERIES_INSTANCE_UID: "UI",
    Tag.STUDY_DATE: "DA",
    Tag.SERIES_DATE: "DA",
    Tag.ACQUISITION_DATE: "DA",
    Tag.SERIES_TIME: "TM",
    Tag.ACQUISITION_TIME: "TM",
    Tag.CODE_VALUE: "SH",
    Tag.SERIES_DESCRIPTION: "LO",
    Tag.MANUFACTURER_MODEL_NAME: "LO",
    Tag.REFERENCED_SERIES_SEQUENCE: "SQ",
    Tag.REFERENCED_SOP_INSTANCE_UID: "UI",
    Tag.REFERENCED_SOP_SEQUENCE: "SQ",
    Tag.INSTANCE_NUMBER: "IS",
    Tag.CURRENT_EVIDENCE_SEQUENCE: "SQ",
    Tag.ANATOMIC_REGION_SEQUENCE: "SQ",
    Tag.PATIENT_ID: "LO",
    Tag.ISSUER_OF_PATIENT_ID: "LO",
    Tag.PATIENT_WEIGHT: "DS",
    Tag.RADIOPHARMACEUTICAL_START_TIME: "TM",
    Tag.RADIONUCLIDE_TOTAL_DOSE: "DS",
    Tag.RADIONUCLIDE_HALF_LIFE: "DS",
    Tag.RADIOPHARMACEUTICAL_START_DATETIME: "DT",
    Tag.FRAME_ANATOMY_SEQUENCE: "SQ",
    Tag.IMAGER_PIXEL_SPACING: "DS",
    Tag.NOMINAL_SCANNED_PIXEL_SPACING: "DS",
    Tag.SAMPLES_PER_PIXEL: "US",
    Tag.PLANAR_CONFIGURATION: "US",
    Tag.NUMBER_OF_FRAMES: "IS",
    Tag.ROWS: "US",
    Tag.COLUMNS: "US",
    Tag.PIXEL_SPACING: "DS",
    Tag.PIXEL_ASPECT_RATIO: "IS",
    Tag.BITS_ALLOCATED: "US",
    Tag.BITS_STORED: "US",
    Tag.HIGH_BIT: "US",
    Tag.PIXEL_REPRESENTATION: "US",
    Tag.PIXEL_PADDING_VALUE: "US",
    Tag.PIXEL_PADDING_RANGE_LIMIT: "US",
    Tag.FLOAT_PADDING_VALUE: "FL",
    Tag.DOUBLE_FLOAT_PADDING_VALUE: "FD",
    Tag.FLOAT_PADDING_RANGE_LIMIT: "FL",
    Tag.DOUBLE_FLOAT_PADDING_RANGE_LIMIT: "FD",
    Tag.WINDOW_CENTER: "DS",
    Tag.WINDOW_WIDTH: "DS",
    Tag.RESCALE_INTERCEPT: "DS",
    Tag.RESCALE_SLOPE: "DS",
    Tag.RESCALE_TYPE: "LO",
    Tag.WINDOW_EXPLANATION: "LO",
    Tag.RED_PALETTE_DESCRIPTOR: "US",
    Tag.GREEN_PALETTE_DESCRIPTOR: "US",
    Tag.BLUE_PALETTE_DESCRIPTOR: "US",
    Tag.RED_PALETTE_DATA: "OW",
    Tag.GREEN_PALETTE_DATA: "OW",
    Tag.BLUE_PALETTE_DATA: "OW",
    Tag.SEGMENTED_RED_PALETTE_DATA: "OW",
    Tag.SEGMENTED_GREEN_PALETTE_DATA: "OW",
    Tag.SEGMENTED_BLUE_PALETTE_DATA: "OW",
    Tag.MODALITY_LUT_SEQUENCE: "SQ",
    Tag.LUT_DESCRIPTOR: "US",
    Tag.LUT_EXPLANATION: "LO",
    Tag.MODALITY_LUT_TYPE: "LO",
    Tag.LUT_DATA: "OW",
    Tag.VOI_LUT_SEQUENCE: "SQ",
    Tag.REPRESENTATIVE_FRAME_NUMBER: "US",
    Tag.PIXEL_MEASURES_SEQUENCE: "SQ",
    Tag.FRAME_VOI_LUT_SEQUENCE: "SQ",
    Tag.PIXEL_VALUE_TRANSFORMATION_SEQUENCE: "SQ",
    Tag.RADIOPHARMACEUTICAL_INFORMATION_SEQUENCE: "SQ",
    Tag.SHARED_FUNCTIONAL_GROUPS: "SQ",
    Tag.PER_FRAME_FUNCTIONAL_GROUPS: "SQ",
    Tag.EXTENDED_OFFSET_TABLE: "OV",
    Tag.EXTENDED_OFFSET_TABLE_LENGTHS: "OV",
    Tag.FLOAT_PIXEL_DATA: "OF",
    Tag.DOUBLE_FLOAT_PIXEL_DATA: "OD",
    Tag.PIXEL_DATA: "OW",
}

#: Value representations that hold numbers in binary (PS3.5 6.2) -> `struct` format of one.
BINARY = {
    "US": "H",
    "SS": "h",
    "UL": "I",
    "SL": "i",
    "UV": "Q",
    "SV": "q",
    "FL": "f",
    "FD": "d",
    "OW": "H",
    "OV": "Q",
}

#: Value representations whose values may be long, and what a value of the others may have: explicit
#: VR has 16 bits for its length, of which an even one is wanted (PS3.5 7.1.2). Implicit VR has 32,
#: and a million numbers in place of one take seconds to read.
LONG = frozenset({"OW", "OV", "OF", "OD", "SQ"})
MOST_BYTES = 2**16 - 2

#: No integer of the elements above has more than 32 bits (PS3.5 6.2).
INTEGERS = 2**32

DEFAULT_ENCODING = "iso8859"


class DataSet:
    """The elements of one data set or sequence item that are on the list of `Tag`.

    Has no `repr` of its own on purpose: values must not show up in a traceback or a log.
    """

    __slots__ = ("_codec", "_elements", "_items", "_parent", "little")

    def __init__(self, *, little: bool, parent: DataSet | None = None) -> None:
        self.little = little
        self._parent = parent
        self._elements: dict[int, tuple[str, bytes]] = {}
        self._items: dict[int, list[DataSet]] = {}
        self._codec: str | None = None

    def put(self, tag: int, vr: str, value: bytes) -> None:
        """Keep a value. The first of two elements with one tag stands.

        Raises
        ------
        InvalidInput
            DICOM_MALFORMED: it is longer than a value of this kind can be.
        """
        if len(value) > MOST_BYTES and IMPLICIT_VR[tag] not in LONG:
            raise malformed(tag, f"it has {len(value)} bytes, of which it may have {MOST_BYTES}")
        self._elements.setdefault(tag, (IMPLICIT_VR[tag] if vr == "UN" else vr, value))

    def put_item(self, tag: int, *, little: bool) -> DataSet:
        """Keep and return a new item of a sequence."""
        item = DataSet(little=little, parent=self)
        self._items.setdefault(tag, []).append(item)
        return item

    def __contains__(self, tag: Tag) -> bool:
        """Say whether there is an item or a value for `tag`; mere padding is no text."""
        vr, raw = self._elements.get(tag, ("UN", b""))
        return bool(self._items.get(tag)) or bool(raw if vr in BINARY else raw.strip(b" \0"))

    def items(self, tag: Tag) -> list[DataSet]:
        """Return the items of a sequence, none where it is absent."""
        return self._items.get(tag, [])

    def raw(self, tag: Tag) -> bytes:
        """Return the bytes of a value, none where the element is absent."""
        return self._elements.get(tag, ("UN", b""))[1]

    def texts(self, tag: Tag) -> tuple[str, ...]:
        """Return the values of a text element without padding (PS3.5 6.2); none where absent."""
        raw = self.raw(tag)
        if not raw.strip(b" \0"):
            return ()
        text = raw.decode(self._encoding(), errors="backslashreplace")
        return tuple(part.strip(" \0") for part in text.split("\\"))

    def text(self, tag: Tag) -> str:
        """Return the first value of a text element; "" where absent."""
        return next(iter(self.texts(tag)), "")

    def numbers(self, tag: Tag, *, signed: bool = False) -> tuple[float, ...]:
        """Return the values of a number element; none where absent.

        Parameters
        ----------
        tag
            The element.
        signed
            What "US or SS" means here.

        Raises
        ------
        InvalidInput
            DICOM_MALFORMED: a value is not a finite number.
        """
        vr, raw = self._elements.get(tag, ("UN", b""))
        if vr in BINARY:
            return self._binary_numbers(tag, "SS" if vr == "US" and signed else vr, raw)
        try:
            numbers = tuple(float(text) for text in self.texts(tag) if text)
        except ValueError:
            raise malformed(tag, "the value is not a number") from None
        if not all(math.isfinite(number) for number in numbers):
            raise malformed(tag, "the value is not a finite number")
        return numbers

    def integer(self, tag: Tag, absent: int | None = None, *, signed: bool = False) -> int:
        """Return the first value of an integer element, `absent` where there is none.

        Raises
        ------
        InvalidInput
            DICOM_MALFORMED: it is no integer, or is missing and must not be.
        """
        numbers = self.numbers(tag, signed=signed)
        if not numbers:
            if absent is None:
                raise malformed(tag, "the element is missing or empty")
            return absent
        if numbers[0] != int(numbers[0]):
            raise malformed(tag, "the value is not an integer")
        if abs(numbers[0]) >= INTEGERS:
            raise malformed(tag, "the value has more than 32 bits")
        return int(numbers[0])

    def words(self, tag: Tag) -> NDArray[np.uint16]:
        """Return a value as unsigned 16-bit words; an odd last byte is left out."""
        raw = self.raw(tag)
        return np.frombuffer(raw, "<u2" if self.little else ">u2", len(raw) // 2)

    def _binary_numbers(self, tag: Tag, vr: str, raw: bytes) -> tuple[float, ...]:
        size = struct.calcsize(BINARY[vr])
        if len(raw) % size:
            raise malformed(tag, f"the length {len(raw)} is no multiple of {size}")
        order = "<" if self.little else ">"
        numbers = struct.unpack(f"{order}{len(raw) // size}{BINARY[vr]}", raw)
        if not all(math.isfinite(number) for number in numbers):
            raise malformed(tag, "the value is not a finite number")
        return numbers

    def _encoding(self) -> str:
        """Return the Python codec of Specific Character Set (PS3.3 C.12.1.1.2).

        An item without one has that of the data set round it. With code extensions the last set
        named decodes them and ASCII alike. An unknown set reads as Latin-1, which maps every byte:
        the same bytes always give the same text.
        """
        if self._codec is None:
            raw = self.raw(Tag.SPECIFIC_CHARACTER_SET).decode("latin-1")
            names = [name.strip(" \0") for name in raw.split("\\")]
            named = [name for name in names if name]
            if named:
                self._codec = python_encoding.get(named[-1], DEFAULT_ENCODING)
            else:
                self._codec = self._parent._encoding() if self._parent else DEFAULT_ENCODING
        return self._codec
