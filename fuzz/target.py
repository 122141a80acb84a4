"""The process that libFuzzer drives: `python -m fuzz.target NAME [libFuzzer's arguments]`.

A typed error is an answer. Whatever else comes out of a target is a finding, and so is a crash of
a codec, an input that takes too long, and memory beyond the limit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import islice

import atheris

with atheris.instrument_imports(include=["dafh.imaging"]):
    from dafh.imaging import codecs, decode, reader

from dafh.errors import DafhError
from dafh.imaging.image import PatientKeyer
from dafh.imaging.limits import Limits, Policy
from dafh.imaging.pixels import Photometric, PixelFormat
from tests.imaging.mutations import mutate

#: Time and memory grow with the samples of a frame: a sixteenth of the default keeps what a
#: fuzzer does per second high, and takes every branch that the default takes.
LIMITS = Limits(frame_samples=2**21, inflated_bytes=2**24)
POLICY = Policy(limits=LIMITS)
KEYER = PatientKeyer(bytes(32), "fuzz")
SIDE = 16
#: Frames that one input may make.
FRAMES = 3

#: In a fixed order: the first bytes of an input count into them.
CODECS = [codecs.CODECS[syntax] for syntax in sorted(codecs.CODECS)]
FORMATS = [
    PixelFormat(
        rows=16, columns=16, samples=samples, photometric=photometric, frames=1,
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


def mutated(data: bytes, max_size: int, seed: int) -> bytes:
    """Damage the structure in every other case; libFuzzer's own way in the rest."""
    changed = mutate(data, seed) if seed % 2 else atheris.Mutate(data, max_size)
    return bytes(changed[:max_size])


def main() -> None:
    """Run the target that the first argument names."""
    target = TARGETS[sys.argv.pop(1)]

    def test_one_input(data: bytes) -> None:
        try:
            target(data)
        except DafhError:
            return

    atheris.Setup(sys.argv, test_one_input, custom_mutator=mutated, internal_libfuzzer=True)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
