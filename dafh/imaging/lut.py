"""Look-up tables: modality, VOI and palette (PS3.3 C.11.1.1, C.11.2.1.1, C.7.6.3.1.5 and 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dafh.imaging.elements import DataSet, Tag
from dafh.imaging.refusal import malformed


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

    Raises
    ------
    InvalidInput
        DICOM_MALFORMED: it has fewer entries than it says.
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
    entries = words.astype(np.float64)
    if len(words) < count <= len(data_set.raw(data)):
        # 8-bit entries may lie two to a word, the first in the low half (PS3.3 C.7.6.3.1.6).
        halves = np.stack([words & 0xFF, words >> 8], axis=1)
        entries = halves.reshape(-1).astype(np.float64)
    if len(entries) < count:
        raise malformed(data, f"{count} entries are promised, {len(entries)} are there")
    return Lut(first, entries[:count], bits)
