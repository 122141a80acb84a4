"""RLE Lossless: PS3.5 G."""

from __future__ import annotations

from itertools import pairwise
from struct import unpack_from

import numpy as np

from dafh.imaging.codecs.streams import shape_of, with_sign
from dafh.imaging.limits import Limits
from dafh.imaging.pixels import PixelFormat, Stored
from dafh.imaging.refusal import undecodable

#: Bytes of the header: the number of segments and fifteen offsets (PS3.5 G.5).
HEADER = 64


def decode(stream: bytes, form: PixelFormat, _limits: Limits) -> Stored:
    """Decode segments of bytes: of each sample the most significant byte comes first (G.2)."""
    import imagecodecs

    size = max(1, form.allocated // 8)
    bounds = _bounds(stream, form.samples * size)
    # Pixels of one bit lie eight to a byte, the first in the least significant bit (PS3.5 8.1.1).
    packed = form.allocated == 1
    pixels = form.rows * form.columns
    length = -(-pixels // 8) if packed else pixels
    octets = np.empty((length, form.samples, size), np.uint8)
    for index, (start, stop) in enumerate(pairwise(bounds)):
        segment = imagecodecs.packbits_decode(stream[start:stop], out=length)
        if len(segment) != length:
            raise undecodable(
                f"segment {index + 1} has {len(segment)} bytes where {length} are promised"
            )
        sample, place = divmod(index, size)
        octets[:, sample, size - 1 - place] = np.frombuffer(segment, np.uint8)
    if packed:
        bits = np.unpackbits(octets, count=pixels, bitorder="little")
        return Stored(bits.reshape(shape_of(form)), 1, form.photometric)
    values = octets.view(f"<u{size}").reshape(shape_of(form))
    return with_sign(values, form.allocated, form, form.photometric)


def _bounds(stream: bytes, segments: int) -> list[int]:
    """Return where the segments begin, and the end of the last; the library trusts its header."""
    if len(stream) < HEADER:
        raise undecodable("the RLE header is cut short")
    found, *offsets = unpack_from("<16I", stream)
    if found != segments:
        raise undecodable(f"there are {found} RLE segments where {segments} are promised")
    bounds = [*offsets[:segments], len(stream)]
    if bounds[0] < HEADER or any(before >= after for before, after in pairwise(bounds)):
        raise undecodable("the RLE segments' offsets lead nowhere")
    return bounds
