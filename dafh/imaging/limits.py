"""How much of a file is looked at, and what is let through, before it is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds, all inclusive; a file beyond one is refused with the limit and its value.

    `seconds` and `memory_bytes` are kept by the worker processes of `DecoderPool` alone: nothing
    inside a process can stop a codec.
    """

    #: Bytes of a request.
    request_bytes: int = 16 * MEBIBYTE
    #: Bytes that a deflated data set or frame may inflate to; checked while inflating.
    inflated_bytes: int = 128 * MEBIBYTE
    #: Rows x columns x samples of one frame: what one decode allocates. A mammogram has 21 million.
    frame_samples: int = 2**25
    #: Rows x columns x samples x frames that an instance may claim.
    instance_samples: int = 2**33
    frames: int = 2**16
    #: Sequences inside sequences.
    nesting_depth: int = 32
    #: Data elements and items at all depths, and fragments of the pixel data, together.
    elements: int = 250_000
    #: Seconds that one frame may take, on the clock and on the processor each.
    seconds: float = 10.0
    #: Bytes of memory that one request may take beyond the decoder itself. The largest frame of
    #: 16 bit takes 420 MiB at most; one of 32 bit or of floats twice this limit.
    memory_bytes: int = 1024 * MEBIBYTE

    def __post_init__(self) -> None:
        """Refuse a limit that would refuse everything, or nothing.

        Raises
        ------
        ValueError
            One is not more than zero, or infinite.
        """
        for field in fields(self):
            if not 0 < getattr(self, field.name) < math.inf:
                raise ValueError(f"the limit {field.name} must be finite and more than 0")


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Policy:
    """What an operator decides about files."""

    limits: Limits = DEFAULT_LIMITS
    #: Refuse what says that text is burned into its pixels (0028,0301), instead of warning.
    refuse_burned_in: bool = False
    #: Take files whose first bytes some system would run as a program or unpack.
    allow_executable_preamble: bool = False


DEFAULT_POLICY = Policy()
