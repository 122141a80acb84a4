"""A hash code: the signs of a hash output, packed eight to a byte."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

#: The code lengths that one network gives at once: the paper's 16, 32, 48, and 64 (our default).
BITS = (16, 32, 48, 64)
DEFAULT_BITS = 64


@dataclass(frozen=True, slots=True)
class HashCode:
    """A packed binary code.

    Bit ``i`` is bit ``7 - i % 8`` of byte ``i // 8`` (most significant first, as `numpy.packbits`
    and Milvus BINARY_VECTOR order them) and is 1 where the hash output is above zero.
    """

    packed: bytes

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise ValueError(f"a code has {BITS} bits, not {self.bits}")

    @property
    def bits(self) -> int:
        """Length of the code in bits."""
        return 8 * len(self.packed)

    @classmethod
    def of(cls, hash_output: NDArray[np.float32]) -> Self:
        """Return the code of one hash output, float ``[bits]`` in (-1, 1).

        Examples
        --------
        >>> HashCode.of(np.array([0.9, -0.2] * 8, np.float32)).hex()
        'aaaa'
        """
        return cls(np.packbits(hash_output > 0).tobytes())

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """Return the code written as hexadecimal digits."""
        return cls(bytes.fromhex(text))

    def hex(self) -> str:
        """Return the code as hexadecimal digits, two to a byte."""
        return self.packed.hex()

    def signs(self) -> NDArray[np.float32]:
        """Return the bits as float32 ``[bits]`` of -1 and 1."""
        signs: NDArray[np.float32] = unpack_signs(np.frombuffer(self.packed, np.uint8)[None])[0]
        return signs


def unpack_signs(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Unpack codes uint8 ``[N, bits / 8]`` to float32 ``[N, bits]`` of -1 and 1."""
    signs: NDArray[np.float32] = np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1
    return signs


def hamming(query: HashCode, packed: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the bits in which each of ``N`` codes differs from the query.

    Parameters
    ----------
    query
        The code to compare with.
    packed
        uint8 ``[N, bits / 8]``, codes of the same length.

    Returns
    -------
    NDArray[np.int64]
        ``[N]`` distances in bits, 0 to ``bits``.
    """
    own = np.frombuffer(query.packed, np.uint8)
    distances: NDArray[np.int64] = np.bitwise_count(packed ^ own).sum(axis=1, dtype=np.int64)
    return distances


def asymmetric(hash_output: NDArray[np.float32], packed: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Distance between a query's real-valued hash output and the stored bits of ``N`` codes.

    Half the mean of ``1 - h_i * b_i``: 0 where every bit agrees with full confidence, 1 where every
    bit disagrees so. It orders cases that tie by Hamming distance, at no extra storage.

    Parameters
    ----------
    hash_output
        float32 ``[bits]`` in [-1, 1].
    packed
        uint8 ``[N, bits / 8]``.

    Returns
    -------
    NDArray[np.float64]
        ``[N]`` in [0, 1], rounded to 1e-9 so that the order of summation cannot decide a tie.
    """
    signs = unpack_signs(packed).astype(np.float64)
    agreement = (signs * hash_output.astype(np.float64)).sum(axis=1) / hash_output.size
    rounded: NDArray[np.float64] = np.round((1 - agreement) / 2, 9)
    return rounded
