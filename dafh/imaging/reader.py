"""Reads a DICOM file within limits: no recursion, no trust in lengths, nothing unused is kept.

Encoding rules: PS3.5 7 (data sets), A (transfer syntaxes); file format: PS3.10 7.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from struct import Struct

from pydicom._dicom_dict import DicomDictionary

from dafh.imaging.elements import IMPLICIT_VR, TAGS, DataSet, Tag
from dafh.imaging.limits import Limits
from dafh.imaging.refusal import limit_exceeded, malformed
from dafh.imaging.sniff import MAGIC, PREAMBLE

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"

UNDEFINED = 0xFFFFFFFF
ITEM = 0xFFFEE000
ITEM_END = 0xFFFEE00D
SEQUENCE_END = 0xFFFEE0DD

#: Value representations (PS3.5 7.1.2) with two reserved bytes and a 32-bit length, and the others.
LONG_VRS, SHORT_VRS = (
    {vr.encode(): vr for vr in vrs.split()}
    for vrs in (
        "OB OD OF OL OV OW SQ SV UC UN UR UT UV",
        "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US",
    )
)
VRS = LONG_VRS | SHORT_VRS

#: Group, element, and the 32 bits behind.
_LITTLE, _BIG = Struct("<HHI"), Struct(">HHI")
PIXEL_TAGS = frozenset({Tag.PIXEL_DATA, Tag.FLOAT_PIXEL_DATA, Tag.DOUBLE_FLOAT_PIXEL_DATA})
#: Groups that a data set may begin with.
_FIRST_GROUPS = frozenset({0x0004, 0x0008, 0x0010})
#: Elements that are sequences by the dictionary of PS3.6.
SEQUENCES = frozenset(tag for tag, row in DicomDictionary.items() if row[0] == "SQ")


@dataclass(frozen=True, slots=True, repr=False)
class PixelElement:
    """Pixel data as it lies in the file."""

    tag: int
    vr: str
    #: The value; shorter than `length` where the file ends early.
    value: memoryview
    #: Length that the header claims; `UNDEFINED` where the value is a sequence of fragments.
    length: int
    little: bool

    @property
    def encapsulated(self) -> bool:
        """Whether the value is a sequence of fragments (PS3.5 A.4)."""
        return self.length == UNDEFINED


@dataclass(frozen=True, slots=True, repr=False)
class Instance:
    """What a DICOM file holds, as far as it is used."""

    data_set: DataSet
    #: "" where the file names none; then it is read as the encoding it shows.
    transfer_syntax: str
    pixels: PixelElement | None
    #: How many elements and items were read, at all depths.
    elements: int


@dataclass(frozen=True, slots=True)
class _Encoding:
    implicit: bool
    little: bool

    def header(self, data: memoryview, start: int) -> tuple[int, int]:
        """Return the tag and the 32-bit number behind it."""
        group, element, length = (_LITTLE if self.little else _BIG).unpack_from(data, start)
        return group << 16 | element, length

    def short(self, behind_tag: int) -> int:
        """Return the second half of the 32-bit number behind a tag: a length behind its VR."""
        return behind_tag >> 16 if self.little else behind_tag & 0xFFFF

    def number(self, data: memoryview, start: int, size: int) -> int:
        return int.from_bytes(data[start : start + size], "little" if self.little else "big")


@dataclass(slots=True)
class _Level:
    """A data set, item or sequence that is being read."""

    tag: int
    #: Position behind it; `None` where a delimiter ends it.
    end: int | None
    #: Whether it holds items (a sequence) or elements (a data set or an item).
    holds_items: bool
    encoding: _Encoding
    #: Where wanted elements go; for a sequence, where its items do. `None`: only stepped through.
    target: DataSet | None
    #: A sequence of byte fragments, not of items with elements.
    fragments: bool = False


@dataclass(slots=True)
class _Reader:
    data: memoryview
    limits: Limits
    position: int
    stack: list[_Level] = field(default_factory=list)
    elements: int = 0

    def read(
        self, encoding: _Encoding, only_group: int | None = None
    ) -> tuple[DataSet, PixelElement | None]:
        """Read from `position` to the pixel data, or to the first element of another group."""
        root = DataSet(little=encoding.little)
        self.stack = [_Level(0, len(self.data), False, encoding, root)]
        while self.stack:
            level = self.stack[-1]
            end = len(self.data) if level.end is None else level.end
            at_root = len(self.stack) == 1
            # A few bytes of padding behind the last element of a file are common and harmless.
            if self.position >= end or (at_root and end - self.position < 8):
                self._leave(level)
            elif at_root and only_group is not None and self._group(encoding) != only_group:
                return root, None
            elif level.holds_items:
                self._item(level, end)
            elif pixels := self._element(level, end, at_root=at_root):
                return root, pixels
        return root, None

    def _group(self, encoding: _Encoding) -> int:
        return encoding.number(self.data, self.position, 2)

    def _leave(self, level: _Level) -> None:
        if level.end is None:
            raise malformed(level.tag, "the file ends inside it")
        self.stack.pop()

    def _count(self, tag: int) -> None:
        self.elements += 1
        if self.elements > self.limits.elements:
            raise limit_exceeded(
                tag, "The number of data elements", "elements", self.limits.elements, self.elements
            )
        # Sequences and their items alternate on the stack, above the data set itself.
        depth = len(self.stack) // 2
        if depth > self.limits.nesting_depth:
            raise limit_exceeded(
                tag, "The nesting of sequences", "nesting_depth", self.limits.nesting_depth, depth
            )

    def _item(self, level: _Level, end: int) -> None:
        """Read the header of an item (PS3.5 7.5)."""
        if end - self.position < 8:
            raise malformed(level.tag, "the file ends inside an item's header")
        tag, length = level.encoding.header(self.data, self.position)
        self._count(level.tag)
        self.position += 8
        if tag == SEQUENCE_END and level.end is None:
            self.stack.pop()
        elif tag != ITEM:
            raise malformed(level.tag, "an item was expected inside the sequence")
        elif level.fragments:
            self.position = self._end(level.tag, length, end)
        else:
            stop = None if length == UNDEFINED else self._end(level.tag, length, end)
            target, little = level.target, level.encoding.little
            target = None if target is None else target.put_item(level.tag, little=little)
            self.stack.append(_Level(level.tag, stop, False, level.encoding, target))

    def _element(self, level: _Level, end: int, *, at_root: bool) -> PixelElement | None:
        """Read one element; return it if it is the pixel data, which ends the reading."""
        tag, vr, length = self._header(level, end)
        self._count(tag)
        if tag == ITEM_END and level.end is None and not at_root:
            self.stack.pop()
            return None
        if at_root and tag in PIXEL_TAGS:
            stop = len(self.data) if length == UNDEFINED else self.position + length
            value = self.data[self.position : stop]
            return PixelElement(tag, vr, value, length, level.encoding.little)
        wanted = level.target is not None and tag in TAGS
        # PS3.5 6.2.2: an archive that did not know a sequence has made it UN.
        sequence = vr == "SQ" or (vr == "UN" and wanted and IMPLICIT_VR[tag] == "SQ")
        if sequence or length == UNDEFINED:
            self._enter(level, tag, vr, length, end, wanted=wanted and sequence)
            return None
        stop = self._end(tag, length, end)
        if level.target is not None and wanted:
            level.target.put(tag, vr, bytes(self.data[self.position : stop]))
        self.position = stop
        return None

    def _header(self, level: _Level, end: int) -> tuple[int, str, int]:
        """Return tag, VR and length of the element here and step behind its header."""
        data, start, encoding = self.data, self.position, level.encoding
        if end - start < 8:
            raise malformed(level.tag, "the file ends inside an element's header")
        tag, length = encoding.header(data, start)
        code = bytes(data[start + 4 : start + 6])
        self.position += 8
        if encoding.implicit or tag >> 16 == 0xFFFE or code not in VRS:
            # An unknown VR inside an explicit data set is the mark of a writer that mixes both.
            return tag, _implicit_vr(tag), length
        if code in SHORT_VRS:
            return tag, SHORT_VRS[code], encoding.short(length)
        if end - start < 12:
            raise malformed(tag, "the file ends inside the element's header")
        self.position += 4
        return tag, LONG_VRS[code], encoding.number(data, start + 8, 4)

    def _enter(
        self, level: _Level, tag: int, vr: str, length: int, end: int, *, wanted: bool
    ) -> None:
        stop = None if length == UNDEFINED else self._end(tag, length, end)
        encoding = level.encoding
        if vr == "UN":
            # PS3.5 6.2.2 note 2: a sequence as UN is in implicit VR little endian.
            encoding = _Encoding(implicit=True, little=True)
        target = level.target if wanted else None
        fragments = vr not in ("SQ", "UN")
        self.stack.append(_Level(tag, stop, True, encoding, target, fragments))

    def _end(self, tag: int, length: int, end: int) -> int:
        if length > end - self.position:
            raise malformed(tag, f"it claims {length} bytes where {end - self.position} are left")
        return self.position + length


def read_instance(data: bytes, limits: Limits) -> Instance:
    """Read a DICOM file up to its pixel data.

    Parameters
    ----------
    data
        The file: preamble and file meta information (PS3.10 7.1) may be missing.
    limits
        `inflated_bytes`, `nesting_depth` and `elements` are kept here.

    Raises
    ------
    InvalidInput
        DICOM_MALFORMED or LIMIT_EXCEEDED.
    """
    view = memoryview(data)
    start = PREAMBLE + len(MAGIC) if data[PREAMBLE : PREAMBLE + 4] == MAGIC else 0
    start, transfer_syntax, elements = _file_meta(view, start, limits)
    if transfer_syntax == DEFLATED:
        view, start = (
            memoryview(inflate(view[start:], limits.inflated_bytes, Tag.TRANSFER_SYNTAX_UID)),
            0,
        )
    encoding = _encoding(view, start, transfer_syntax)
    reader = _Reader(view, limits, start, elements=elements)
    data_set, pixels = reader.read(encoding)
    return Instance(data_set, transfer_syntax or _shown_syntax(encoding), pixels, reader.elements)


def inflate(deflated: memoryview | bytes, limit: int, tag: int) -> bytes:
    """Inflate a raw deflate stream (RFC 1951; PS3.5 A.5), never to more than `limit` bytes.

    Parameters
    ----------
    deflated
        The stream; what follows its end is padding.
    limit
        Largest result, bytes.
    tag
        The element to blame.

    Raises
    ------
    InvalidInput
        LIMIT_EXCEEDED, or DICOM_MALFORMED where the stream is broken or cut.
    """
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = stream.decompress(deflated, limit + 1)
    except zlib.error:
        raise malformed(tag, "the deflated stream is broken") from None
    if len(inflated) > limit:
        raise limit_exceeded(tag, "The inflated data", "inflated_bytes", limit, len(inflated))
    if not stream.eof:
        raise malformed(tag, "the deflated stream is cut short")
    return inflated


def _file_meta(view: memoryview, start: int, limits: Limits) -> tuple[int, str, int]:
    """Read group 0002; return the position behind it, the transfer syntax, and how many elements.

    The group's length element is not believed: the group ends where another group begins.
    """
    reader = _Reader(view, limits, start)
    encoding = _Encoding(implicit=not _is_vr(view, start), little=True)
    meta, _ = reader.read(encoding, only_group=0x0002)
    return reader.position, meta.text(Tag.TRANSFER_SYNTAX_UID), reader.elements


def _encoding(view: memoryview, start: int, transfer_syntax: str) -> _Encoding:
    """Return how the data set is encoded: its first element outweighs what was claimed."""
    little = transfer_syntax != EXPLICIT_BIG
    group = bytes(view[start : start + 2])
    # Where the claimed order shows a high group and the other one of those that begin a data set,
    # the claim is wrong. Groups such as 5200 stay: read the other way they are none of these.
    if int.from_bytes(group, "big" if little else "little") in _FIRST_GROUPS:
        little = not little
    return _Encoding(implicit=not _is_vr(view, start), little=little)


def _is_vr(view: memoryview, start: int) -> bool:
    return bytes(view[start + 4 : start + 6]) in VRS


def _shown_syntax(encoding: _Encoding) -> str:
    if not encoding.little:
        return EXPLICIT_BIG
    return IMPLICIT_LITTLE if encoding.implicit else EXPLICIT_LITTLE


def _implicit_vr(tag: int) -> str:
    return IMPLICIT_VR.get(tag) or ("SQ" if tag in SEQUENCES else "UN")
