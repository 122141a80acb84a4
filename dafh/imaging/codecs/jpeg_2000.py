"""JPEG 2000 and High-Throughput JPEG 2000 (ITU-T T.800, T.814): PS3.5 A.4.4."""

from __future__ import annotations

from dataclasses import dataclass, replace
from struct import unpack_from

import numpy as np

from dafh.imaging.codecs.streams import match, with_sign
from dafh.imaging.limits import Limits
from dafh.imaging.pixels import Photometric, PixelFormat, Stored
from dafh.imaging.refusal import undecodable

#: Markers SOC and SIZ, with which a codestream begins (T.800 A.4.1, A.5.1), and EOC.
CODESTREAM = b"\xff\x4f\xff\x51"
END_OF_CODESTREAM = b"\xff\xd9"

#: First box of a JP2 file (T.800 I.5.1), and the type of the box that holds the codestream.
JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
CODESTREAM_BOX = b"jp2c"

#: Tiles of one image: each costs the decoder some 6 kB before the first of them is read.
MOST_TILES = 4096


@dataclass(frozen=True, slots=True)
class _Size:
    """Image and tile size, marker segment SIZ."""

    rows: int
    columns: int
    samples: int
    precision: int
    signed: bool


def decode(stream: bytes, form: PixelFormat, _limits: Limits) -> Stored:
    """Decode a codestream, also one that is wrapped as a JP2 file.

    A wrapping says nothing that a data set does not: its colour space and profile are left aside.
    """
    import imagecodecs

    stream = _codestream(stream)
    size = _read_size(stream)
    match(form, size.rows, size.columns, size.samples, size.precision)
    # OpenJPEG calls a stream damaged when it finds no memory. What it needs at least is asked for
    # here, where the want of it has a name.
    np.empty((2, form.frame_samples), np.int32)
    # It knows when data are missing, but insists on the end marker: a second does no harm.
    values = imagecodecs.jpeg2k_decode(stream + END_OF_CODESTREAM, numthreads=1)
    photometric = form.photometric
    if photometric in (Photometric.YBR_RCT, Photometric.YBR_ICT):
        # PS3.5 8.2.4: the transform is part of the stream, and is undone with it.
        photometric = Photometric.RGB
    unsigned = values.view(f"u{values.dtype.itemsize}")
    # PS3.5 8.2.4 wants one sign in both places; where they differ, 8.2 lets the stream decide. But
    # writers that know no sign say "unsigned" by rote: it is the other word that means something.
    form = replace(form, signed=form.signed or size.signed)
    return with_sign(unsigned, size.precision, form, photometric)


def _codestream(stream: bytes) -> bytes:
    """Return the codestream, taken out of the boxes of a JP2 file where it is in one."""
    if stream.startswith(CODESTREAM):
        return stream
    position = 0 if stream.startswith(JP2_SIGNATURE) else len(stream)
    while len(stream) - position >= 8:
        length, kind = unpack_from(">I4s", stream, position)
        start = position + 8
        if length == 1 and len(stream) - position >= 16:
            length, start = unpack_from(">Q", stream, position + 8)[0], position + 16
        stop = len(stream) if length == 0 else position + length
        if kind == CODESTREAM_BOX and stream.startswith(CODESTREAM, start):
            return stream[start:stop]
        if stop < start:
            break
        position = stop
    raise undecodable("there is no JPEG 2000 codestream")


def _read_size(stream: bytes) -> _Size:
    """Read the marker segment SIZ (T.800 A.5.1)."""
    if len(stream) < 42:
        raise undecodable("the JPEG 2000 codestream ends inside its header")
    right, bottom, left, top, across, down, first_x, first_y, samples = unpack_from(
        ">8IH", stream, 8
    )
    components = {stream[place : place + 3] for place in range(42, 42 + 3 * samples, 3)}
    if len(components) != 1 or not next(iter(components)).endswith(b"\1\1"):
        raise undecodable("the JPEG 2000 components differ or are subsampled")
    if not across or not down:
        raise undecodable("the JPEG 2000 tiles have no size")
    tiles = -(-(right - first_x) // across) * -(-(bottom - first_y) // down)
    if not 1 <= tiles <= MOST_TILES:
        raise undecodable(f"there are {tiles} JPEG 2000 tiles; up to {MOST_TILES} are decoded")
    depth = next(iter(components))[0]
    # The most significant bit says whether values are signed.
    return _Size(bottom - top, right - left, samples, (depth & 0x7F) + 1, bool(depth & 0x80))
