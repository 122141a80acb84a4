"""Look-up tables: modality, VOI and palette (PS3.3 C.11.1.1, C.11.2.1.1, C.7.6.3.1.5 and 6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dafh.imaging.elements import DataSet, Tag
from dafh.imaging.refusal import malformed

#: Segment types of a segmented palette, PS3.3 C.7.9.2.
DISCRETE, LINEAR, INDIRECT = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Lut:
    """A table of outputs for consecutive whole inputs."""

    #: The input that the first entry is for.
    first: int
    #: float64 ``[n]``.
    entries: NDArray[np.float64]
    #: Bits of an entry.
    bits: int

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map values of any shape; those outside the table take its first or last entry."""
        places = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        mapped: NDArray[np.float64] = self.entries[places.astype(np.int64)]
        return mapped


def read_lut(
    data_set: DataSet,
    descriptor: Tag = Tag.LUT_DESCRIPTOR,
    data: Tag = Tag.LUT_DATA,
    *,
    signed: bool,
    segmented: bool = False,
) -> Lut:
    """Read a table.

    Parameters
    ----------
    data_set
        Where descriptor and data are.
    descriptor, data
        The elements: number of entries, first input, bits; and the entries.
    signed
        Whether inputs are signed.
    segmented
        Whether the data are segments that make the entries.

    Raises
    ------
    InvalidInput
        DICOM_MALFORMED: it has fewer entries than it says, or a segment is broken.
    """
    described = data_set.numbers(descriptor)
    if len(described) != 3:
        raise malformed(descriptor, "a LUT descriptor has three values")
    count, first, bits = (int(number) & 0xFFFF for number in described)
    # PS3.3 C.11.1.1: 0 stands for 65536 entries, which 16 bits cannot say.
    count = count or 2**16
    if not 1 <= bits <= 16:
        raise malformed(descriptor, f"{bits} is not 8 to 16 bits")
    if signed and first >= 2**15:
        first -= 2**16
    words = data_set.words(data)
    if segmented:
        units = words if bits > 8 else _octets(words)
        return Lut(first, _expanded(units, count, data, octets=bits <= 8), bits)
    # 8-bit entries may lie two to a word (PS3.3 C.7.6.3.1.6).
    paired = len(words) < count <= len(data_set.raw(data))
    entries = (_octets(words) if paired else words).astype(np.float64)
    if len(entries) < count:
        raise malformed(data, f"{count} entries are promised, {len(entries)} are there")
    return Lut(first, entries[:count], bits)


def _octets(words: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Split words in two, the low half first."""
    return np.stack([words & 0xFF, words >> 8], axis=1).reshape(-1)


def _expanded(
    units: NDArray[np.uint16], count: int, tag: Tag, *, octets: bool
) -> NDArray[np.float64]:
    """Return the entries of a segmented palette (PS3.3 C.7.9.2).

    Each segment makes one entry at least, and the table ends with its last: that bounds the work.

    Parameters
    ----------
    units
        The data ``[n]``: 8-bit or 16-bit units, of which numbers and entries consist.
    count
        Entries to make.
    tag
        The element to blame.
    octets
        Whether a unit has 8 bits.
    """
    entries: list[NDArray[np.float64]] = []
    made = 0
    for kind, length, start in _segments(units.tolist(), tag, octets=octets):
        given = units[start : start + (length if kind == DISCRETE else 1)].astype(np.float64)
        made += length
        if kind > LINEAR or not length or made > count or not given.size:
            raise malformed(tag, "a segment is of no known type, empty or too long")
        if kind == LINEAR:
            if not entries:
                raise malformed(tag, "the first segment has no line to continue")
            before = entries[-1][-1]
            given = np.rint(before + (given - before) * np.arange(1, length + 1) / length)
        if len(given) < length:
            raise malformed(tag, "a segment is cut short")
        entries.append(given)
        if made == count:
            return np.concatenate(entries)
    raise malformed(tag, f"{count} entries are promised, {made} are there")


def _segments(units: list[int], tag: Tag, *, octets: bool) -> Iterator[tuple[int, int, int]]:
    """Yield type and length of each segment and the place of its data.

    In place of an indirect segment come those that it copies; none may be indirect itself.
    """
    # The offset of an indirect segment: 32 bits, the lowest unit first, in bytes.
    parts, size, bits = (4, 1, 8) if octets else (2, 2, 16)
    place = 0
    while place + 2 < len(units):
        kind, length = units[place : place + 2]
        if kind != INDIRECT:
            yield kind, length, place + 2
            place += 2 + (length if kind == DISCRETE else 1)
            continue
        offset = units[place + 2 : place + 2 + parts]
        source = sum(part << bits * index for index, part in enumerate(offset)) // size
        for _ in range(length):
            if source + 2 >= len(units) or units[source] == INDIRECT:
                raise malformed(tag, "an indirect segment leads to no other")
            kind, copied = units[source : source + 2]
            yield kind, copied, source + 2
            source += 2 + (copied if kind == DISCRETE else 1)
        place += 2 + parts
