"""What is fuzzed: a typed error is an answer to any bytes, all else is a finding."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from dafh.imaging import codecs, decode, reader
from dafh.imaging.image import PatientKeyer
from dafh.imaging.limits import Limits, Policy
from dafh.imaging.pixels import Photometric, PixelFormat

#: Time and memory grow with the samples of a frame: a sixteenth of the default keeps what a
#: fuzzer does per second high, and takes every branch that the default takes.
LIMITS = Limits(frame_samples=2**21, inflated_bytes=2**24)
POLICY = Policy(limits=LIMITS)
KEYER = PatientKeyer(bytes(32), "fuzz")
SIDE = 16
#: Frames that one input may make.
FRAMES = 3

#: Rows and columns of a stream's frame.
ROWS = 16
#: In a fixed order: the first bytes of an input count into them.
CODECS = [codecs.CODECS[syntax] for syntax in sorted(codecs.CODECS)]
FORMATS = [
    PixelFormat(
        rows=ROWS, columns=ROWS, samples=samples, photometric=photometric, frames=1,
        allocated=allocated, stored=stored, high_bit=stored - 1, signed=signed, by_plane=by_plane,
        floating=False,
    )
    for samples, photometric, allocated, stored, signed, by_plane in (
        (1, Photometric.MONOCHROME2, 8, 8, False, False),
        (1, Photometric.MONOCHROME2, 16, 12, False, False),
        (1, Photometric.MONOCHROME2, 16, 16, True, False),
        (1, Photometric.MONOCHROME2, 32, 32, False, False),
        (1, Photometric.MONOCHROME2, 1, 1, False, False),
        (3, Photometric.RGB, 8, 8, False, False),
        (3, Photometric.YBR_FULL_422, 8, 8, False, True),
    )
]  # fmt: skip


def whole(data: bytes) -> None:
    """Decode the representative frame, then the first ones in turn."""
    decode.decode(data, side=SIDE, keyer=KEYER, frame=decode.REPRESENTATIVE, policy=POLICY)
    for _ in islice(decode.decode_all(data, side=SIDE, policy=POLICY), FRAMES):
        pass


def headers(data: bytes) -> None:
    """Read a file up to its pixels, without decoding them."""
    reader.read_instance(data, LIMITS)


def streams(data: bytes) -> None:
    """Decode a compressed stream; its first two bytes choose the transfer syntax and the format."""
    if len(data) < 2:
        return
    codec = CODECS[data[0] % len(CODECS)]
    codecs.decode_frame(codec, data[2:], FORMATS[data[1] % len(FORMATS)], LIMITS)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "decode": whole,
    "reader": headers,
    "codecs": streams,
}
