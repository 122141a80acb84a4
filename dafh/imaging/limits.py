"""How much of a file is looked at before it is refused."""

from __future__ import annotations

from dataclasses import dataclass

MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds, all inclusive; a file beyond one is refused with the limit and its value."""

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
    #: Data elements and items, at all depths.
    elements: int = 250_000


DEFAULT_LIMITS = Limits()
