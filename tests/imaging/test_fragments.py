"""The stream of each frame is found, however a file cuts it into fragments."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from pydicom.encaps import encapsulate, encapsulate_extended

from dafh.errors import InvalidInput
from dafh.imaging.codecs import CODECS
from dafh.imaging.decode import decode, decode_all
from dafh.imaging.pixels import Photometric, Stored

from .encoders import PREFIX, encoded, picture, write_compressed
from .instances import write_instance

LOSSLESS_JPEG, JPEG_LS, JPEG_2000 = PREFIX + "4.70", PREFIX + "4.80", PREFIX + "4.90"
JPEG_XL, RLE, DEFLATED = PREFIX + "4.110", PREFIX + "5", PREFIX + "8.1"


def spread(how: str, streams: list[bytes]) -> tuple[bytes, dict[str, Any]]:
    """Return frames in fragments, and the elements that belong to them."""
    padded = [stream + b"\0" * (len(stream) % 2) for stream in streams]
    match how:
        case "no table":
            return encapsulate(padded, has_bot=False), {}
        case "basic table":
            return encapsulate(padded), {}
        case "extended table":
            value, offsets, lengths = encapsulate_extended(padded)
            return value, {"ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}
        case "several fragments":
            return encapsulate(padded, fragments_per_frame=3), {}
        case _:
            return encapsulate(padded, fragments_per_frame=3, has_bot=False), {}


@pytest.mark.parametrize("how", ["no table", "basic table", "extended table", "several fragments",
                                 "several fragments, no table"])  # fmt: skip
@pytest.mark.parametrize("syntax", [JPEG_LS, RLE, JPEG_2000, LOSSLESS_JPEG, DEFLATED, JPEG_XL])
def test_every_frame_is_found_however_it_is_fragmented(how: str, syntax: str) -> None:
    if "several" in how and CODECS[syntax].one_each:
        pytest.skip("one fragment for each frame")
    if how == "several fragments, no table" and syntax == JPEG_XL:
        pytest.skip("nothing tells where a stream ends")
    frames = [picture(24, 24, 12, seed=seed) for seed in range(5)]
    value, tables = spread(how, [encoded(frame, syntax, 12) for frame in frames])
    data = write_compressed(frames, syntax, 12, tables, value)
    found = [image.content_sha256 for image in decode_all(data, side=8)]
    assert found == [Stored(frame, 12, Photometric.MONOCHROME2).sha256() for frame in frames]


def test_a_delimiter_that_was_forgotten_is_not_missed() -> None:
    values = picture(24, 24, 16)
    data = write_instance(values, syntax=JPEG_LS, PixelData=encapsulate([encoded(values, JPEG_LS)]))
    assert data.endswith(b"\xfe\xff\xdd\xe0\0\0\0\0")
    whole = decode(data, side=8).content_sha256
    assert decode(data[:-8], side=8).content_sha256 == whole
    for cut in (1, 4, 7, 9, 20):
        with pytest.raises(InvalidInput):
            decode(data[:-cut], side=8)


def test_big_endian_frames_of_odd_length_come_in_order() -> None:
    frames = np.arange(5 * 3 * 3, dtype=np.uint8).reshape(5, 3, 3)
    padded = np.append(frames.reshape(-1), np.uint8(0))
    swapped = padded.reshape(-1, 2)[:, ::-1].tobytes()
    data = write_instance(
        frames[0], syntax="1.2.840.10008.1.2.2", NumberOfFrames=5, PixelData=swapped
    )
    found = [image.content_sha256 for image in decode_all(data, side=8)]
    assert found == [Stored(frame, 8, Photometric.MONOCHROME2).sha256() for frame in frames]
    assert all(before != after for before, after in pairwise(found))


def test_a_big_endian_frame_of_two_bytes_is_read() -> None:
    data = write_instance(
        np.zeros((1, 2), np.uint8), syntax="1.2.840.10008.1.2.2", PixelData=b"\x09\x05"
    )
    expected = Stored(np.array([[5, 9]], np.uint8), 8, Photometric.MONOCHROME2)
    assert decode(data, side=8).content_sha256 == expected.sha256()
