"""Every refusal is typed, quick, names its element, and says what to do."""

from __future__ import annotations

import io
import time
import zlib
from collections.abc import Callable
from struct import pack

import numpy as np
import pytest
from PIL import Image as Pillow
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    MPEG4HP41,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from dafh.errors import DafhError, InvalidInput, Reason
from dafh.imaging.decode import decode
from dafh.imaging.elements import Tag
from dafh.imaging.image import Image
from dafh.imaging.limits import Limits, Policy
from dafh.imaging.phantom import Phantom

from .instances import MakeInstance, write_instance

PREAMBLE = bytes(128) + b"DICM"
#: A JPEG stream of process 15 up to its first scan: SOF11, 16 x 16, and SOS.
ARITHMETIC = bytes.fromhex("ffd8 ffcb000b08 00100010 01011100 ffda0008 01010001 0000")


def nested(depth: int, *, undefined: bool) -> bytes:
    """Return an image with sequences in each other; pydicom would take for ever to write it."""
    sequence = b""
    for _ in range(depth):
        item = with_length(b"\xfe\xff\x00\xe0", sequence, b"\xfe\xff\x0d\xe0", undefined)
        sequence = with_length(b"\x08\x00\x40\x11SQ\0\0", item, b"\xfe\xff\xdd\xe0", undefined)
    data = write_instance()
    start = data.index(b"\x10\x00\x20\x00LO")
    return data[:start] + sequence + data[start:]


def with_length(head: bytes, value: bytes, end: bytes, undefined: bool) -> bytes:
    if undefined:
        return head + b"\xff" * 4 + value + end + bytes(4)
    return head + len(value).to_bytes(4, "little") + value


def png(rows: int, columns: int) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(np.zeros((rows, columns), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def lying_png() -> bytes:
    """Return a small PNG whose header claims 60 000 x 60 000."""
    data = bytearray(png(4, 4))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def two_headed_png() -> bytes:
    """Return a PNG whose first header lies and whose last does not."""
    lie, honest = lying_png(), png(4, 4)
    return lie[:-12] + honest[8:33] + lie[-12:]


def two_headed_jpeg() -> bytes:
    """Return a JPEG with a second frame header that claims 65535 x 65535."""
    data = jpeg(16)
    start = data.index(b"\xff\xc0")
    frame = data[start : start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")]
    lie = frame[:5] + b"\xff" * 4 + frame[9:]
    return data[: start + len(frame)] + lie + data[start + len(frame) :]


def deflate_bomb() -> bytes:
    """Return a few hundred kilobytes that inflate to 300 MiB."""
    start = write_instance(syntax="1.2.840.10008.1.2.1.99")
    meta = start[: 144 + int.from_bytes(start[140:144], "little")]
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    chunk = bytes(2**20)
    return meta + b"".join(squeezer.compress(chunk) for _ in range(300)) + squeezer.flush()


def with_value(data: bytes, tag: Tag, vr: bytes, value: bytes) -> bytes:
    """Return a file in explicit VR where an element with two bytes of value has another."""
    start = data.index(pack("<HH", tag >> 16, tag & 0xFFFF))
    return data[: start + 4] + vr + pack("<H", len(value)) + value + data[start + 10 :]


def report() -> bytes:
    return write_instance(
        Modality="SR", without=("PixelData", "Rows", "Columns", "PhotometricInterpretation")
    )


#: What is sent -> how it is made, the reason, and the subject of the refusal.
REFUSED: dict[str, tuple[Callable[[], bytes], Reason, str]] = {
    "nothing": (bytes, Reason.EMPTY_INPUT, ""),
    "20 MB of zeros": (lambda: bytes(20_000_000), Reason.TOO_LARGE, "request_bytes"),
    "16 MB of zeros": (lambda: bytes(16_000_000), Reason.NOT_AN_IMAGE, ""),
    "zeros behind DICM": (
        lambda: PREAMBLE + bytes(16_000_000),
        Reason.LIMIT_EXCEEDED,
        "(0000,0000)",
    ),
    "a text": (lambda: b"Findings: none.\n" * 40, Reason.NOT_AN_IMAGE, ""),
    "a GIF": (lambda: b"GIF89a" + bytes(300), Reason.NOT_AN_IMAGE, ""),
    "a Windows program": (lambda: b"MZ" + PREAMBLE[2:], Reason.EXECUTABLE_PREAMBLE, "preamble"),
    "an ELF program": (lambda: b"\x7fELF" + bytes(99), Reason.EXECUTABLE_PREAMBLE, "preamble"),
    "a Mach-O program": (
        lambda: b"\xcf\xfa\xed\xfe" + PREAMBLE[4:],
        Reason.EXECUTABLE_PREAMBLE,
        "preamble",
    ),
    "a Mach-O program for several processors": (
        lambda: b"\xca\xfe\xba\xbe" + PREAMBLE[4:],
        Reason.EXECUTABLE_PREAMBLE,
        "preamble",
    ),
    "a script": (lambda: b"#!/bin/sh\n" + PREAMBLE, Reason.EXECUTABLE_PREAMBLE, "preamble"),
    "an archive": (lambda: b"PK\x03\x04" + bytes(99), Reason.EXECUTABLE_PREAMBLE, "preamble"),
    "DICM and no more": (lambda: PREAMBLE, Reason.NO_PIXELS, "(7FE0,0010)"),
    "a report": (report, Reason.NO_PIXELS, "(7FE0,0010)"),
    "a deflate bomb": (deflate_bomb, Reason.LIMIT_EXCEEDED, "(0002,0010)"),
    "400 sequences in each other": (
        lambda: nested(400, undefined=False),
        Reason.LIMIT_EXCEEDED,
        "(0008,1140)",
    ),
    "400 open sequences in each other": (
        lambda: nested(400, undefined=True),
        Reason.LIMIT_EXCEEDED,
        "(0008,1140)",
    ),
    "rows and columns that lie": (
        lambda: write_instance(Rows=65535, Columns=65535),
        Reason.LIMIT_EXCEEDED,
        "(0028,0010)",
    ),
    "rows that lie a little": (
        lambda: write_instance(Rows=17),
        Reason.PIXELS_UNDECODABLE,
        "(7FE0,0010)",
    ),
    "no rows": (lambda: write_instance(Rows=0), Reason.DICOM_MALFORMED, "(0028,0010)"),
    "columns missing": (
        lambda: write_instance(without=("Columns",)),
        Reason.DICOM_MALFORMED,
        "(0028,0011)",
    ),
    "frames that lie": (
        lambda: write_instance(NumberOfFrames=2**30),
        Reason.LIMIT_EXCEEDED,
        "(0028,0008)",
    ),
    "frames that are not there": (
        lambda: write_instance(NumberOfFrames=2),
        Reason.PIXELS_UNDECODABLE,
        "(7FE0,0010)",
    ),
    "rows beyond all numbers": (
        lambda: with_value(write_instance(), Tag.ROWS, b"DS", b"1e307 "),
        Reason.DICOM_MALFORMED,
        "(0028,0010)",
    ),
    "a million windows": (
        lambda: write_instance(syntax=ImplicitVRLittleEndian, WindowWidth=["9"] * 1_000_000),
        Reason.DICOM_MALFORMED,
        "(0028,1051)",
    ),
    "bits that do not fit": (
        lambda: write_instance(BitsStored=17, HighBit=16),
        Reason.DICOM_MALFORMED,
        "(0028,0101)",
    ),
    "an odd container": (
        lambda: write_instance(BitsAllocated=12),
        Reason.DICOM_MALFORMED,
        "(0028,0100)",
    ),
    "half a pair of pixels": (
        lambda: write_instance(
            np.zeros((3, 3), np.uint8),
            SamplesPerPixel=3,
            PlanarConfiguration=0,
            PhotometricInterpretation="YBR_FULL_422",
            PixelData=bytes(18),
        ),
        Reason.DICOM_MALFORMED,
        "(0028,0011)",
    ),
    "colours of single bits": (
        lambda: write_instance(
            np.zeros((16, 16), np.uint8),
            SamplesPerPixel=3,
            PhotometricInterpretation="YBR_FULL_422",
            BitsAllocated=1,
            BitsStored=1,
            HighBit=0,
            # All that two samples a pixel need, and less than three do.
            PixelData=bytes(64),
        ),
        Reason.DICOM_MALFORMED,
        "(0028,0100)",
    ),
    "an unknown colour model": (
        lambda: write_instance(PhotometricInterpretation="CMYK"),
        Reason.PHOTOMETRIC_UNSUPPORTED,
        "(0028,0004)",
    ),
    "no colour model": (
        lambda: write_instance(without=("PhotometricInterpretation",)),
        Reason.PHOTOMETRIC_UNSUPPORTED,
        "(0028,0004)",
    ),
    "a palette without tables": (
        lambda: write_instance(PhotometricInterpretation="PALETTE COLOR"),
        Reason.PHOTOMETRIC_UNSUPPORTED,
        "(0028,0004)",
    ),
    "no instance UID": (
        lambda: write_instance(without=("SOPInstanceUID",)),
        Reason.UID_INVALID,
        "(0008,0018)",
    ),
    "a UID with a letter": (
        lambda: write_instance(StudyInstanceUID="1.92.3").replace(b"1.92.3", b"1.x2.3"),
        Reason.UID_INVALID,
        "(0020,000D)",
    ),
    "JPEG lossless with arithmetic coding": (
        lambda: compressed(JPEGLosslessSV1, ARITHMETIC),
        Reason.TRANSFER_SYNTAX_UNSUPPORTED,
        "(0002,0010)",
    ),
    "a video": (
        lambda: compressed(MPEG4HP41, bytes(99)),
        Reason.TRANSFER_SYNTAX_UNSUPPORTED,
        "(0002,0010)",
    ),
    "a compressed image that says it is not": (
        lambda: compressed(ExplicitVRLittleEndian, jpeg(16)),
        Reason.PIXELS_UNDECODABLE,
        "(7FE0,0010)",
    ),
    "noise for JPEG lossless": (
        lambda: compressed(JPEGLosslessSV1, b"\xff\xd8\xff\xc3" + bytes(99)),
        Reason.PIXELS_UNDECODABLE,
        "(7FE0,0010)",
    ),
    "a private transfer syntax": (
        lambda: compressed("1.2.840.113619.5.99", b"??"),
        Reason.TRANSFER_SYNTAX_UNSUPPORTED,
        "(0002,0010)",
    ),
    "noise for JPEG": (
        lambda: compressed(JPEGBaseline8Bit, b"\x01\x02" * 99),
        Reason.PIXELS_UNDECODABLE,
        "(7FE0,0010)",
    ),
    "noise for JPEG 2000": (
        lambda: compressed(JPEG2000Lossless, b"\xff\x4f\xff\x51" + b"\x01\x02" * 99),
        Reason.PIXELS_UNDECODABLE,
        "(7FE0,0010)",
    ),
    "noise for RLE": (
        lambda: compressed(RLELossless, b"\x01\x00\x00\x00" + b"\x09" * 99),
        Reason.PIXELS_UNDECODABLE,
        "(7FE0,0010)",
    ),
    "a PNG that lies": (
        lying_png,
        Reason.LIMIT_EXCEEDED,
        "(0028,0010)",
    ),
    "a PNG with two headers": (two_headed_png, Reason.PIXELS_UNDECODABLE, "IHDR"),
    "a JPEG with two headers": (two_headed_jpeg, Reason.PIXELS_UNDECODABLE, "(7FE0,0010)"),
    "a JPEG of a million segments": (
        lambda: (whole := jpeg(16))[:2] + b"\xff\xe1\0\2" * 1_000_000 + whole[2:],
        Reason.PIXELS_UNDECODABLE,
        "(7FE0,0010)",
    ),
    "a PNG of a million chunks": (
        lambda: png(4, 4)[:33] + bytes(4) + (b"IDAT" + bytes(8)) * 1_000_000,
        Reason.PIXELS_UNDECODABLE,
        "PNG",
    ),
    "a million fragments": (
        lambda: compressed(JPEGBaseline8Bit, b"\0\0", empty_fragments=1_000_000),
        Reason.LIMIT_EXCEEDED,
        "(7FE0,0010)",
    ),
    "half a PNG": (lambda: png(64, 64)[:60], Reason.PIXELS_UNDECODABLE, "PNG"),
}  # fmt: skip


def compressed(syntax: str, stream: bytes, empty_fragments: int = 0) -> bytes:
    data = write_instance(np.zeros((16, 16), np.uint8))
    head = data[: data.rindex(b"\xe0\x7f\x10\x00OW")]
    body = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + encapsulate([stream])
    body += b"\xfe\xff\x00\xe0\0\0\0\0" * empty_fragments
    return relabel(head, syntax) + body + b"\xfe\xff\xdd\xe0\0\0\0\0"


def relabel(head: bytes, syntax: str) -> bytes:
    """Return a file whose transfer syntax element says something else."""
    start = head.index(b"\x02\x00\x10\x00UI")
    length = int.from_bytes(head[start + 6 : start + 8], "little")
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    element = b"\x02\x00\x10\x00UI" + len(value).to_bytes(2, "little") + value
    return head[:start] + element + head[start + 8 + length :]


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_its_reason_and_subject(name: str) -> None:
    make, reason, subject = REFUSED[name]
    data = make()
    started = time.process_time()
    with pytest.raises(InvalidInput) as caught:
        decode(data, side=64)
    assert time.process_time() - started < 5
    assert (caught.value.reason, caught.value.subject) == (reason, subject)
    assert caught.value.remedy
    # The cause stays inside: it may quote the file.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_limits_are_the_callers_to_set(make_instance: MakeInstance) -> None:
    data = make_instance()
    for limits in (
        Limits(request_bytes=len(data) - 1),
        Limits(elements=5),
        Limits(frame_samples=255),
        Limits(instance_samples=255),
    ):
        with pytest.raises(InvalidInput) as caught:
            decode(data, side=16, policy=Policy(limits=limits))
        assert caught.value.reason in (Reason.TOO_LARGE, Reason.LIMIT_EXCEEDED)
        assert ">" in caught.value.message
    roomy = Policy(limits=Limits(frame_samples=256))
    assert isinstance(decode(data, side=16, policy=roomy), Image)


def small_files() -> dict[str, bytes]:
    values = np.arange(64, dtype=np.uint16).reshape(8, 8)
    stream = io.BytesIO()
    Pillow.fromarray(values.astype(np.uint8)).save(stream, "JPEG")
    item = Dataset()
    item.CodeMeaning = "nested"
    sequence = Sequence([item])
    return {
        "explicit": write_instance(values, ReferencedImageSequence=sequence),
        "implicit": write_instance(values, syntax="1.2.840.10008.1.2"),
        "big endian": write_instance(values, syntax="1.2.840.10008.1.2.2"),
        "deflated": write_instance(values, syntax="1.2.840.10008.1.2.1.99"),
        "encapsulated": compressed(JPEGBaseline8Bit, jpeg(16)),
        "PNG": png(8, 8),
        "JPEG": stream.getvalue(),
    }


def jpeg(side: int) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(np.arange(side * side, dtype=np.uint8).reshape(side, side)).save(
        stream, "JPEG"
    )
    data = stream.getvalue()
    return data + b"\0" * (len(data) % 2)


SMALL = small_files()


@pytest.mark.parametrize("name", SMALL)
def test_a_file_cut_anywhere_is_refused(name: str) -> None:
    data = SMALL[name]
    assert isinstance(decode(data, side=16), Image)
    reasons = set()
    # Two bytes at the end may be padding that nobody misses, and some writers forget the delimiter.
    delimiter = len(data) - 8 if name == "encapsulated" else None
    for length in {*range(len(data) - 2)} - {delimiter}:
        with pytest.raises(InvalidInput) as caught:
            decode(data[:length], side=16)
        reasons.add(caught.value.reason)
    assert reasons <= {
        Reason.EMPTY_INPUT,
        Reason.NOT_AN_IMAGE,
        Reason.DICOM_MALFORMED,
        Reason.NO_PIXELS,
        Reason.PIXELS_UNDECODABLE,
    }


def test_a_phantom_cut_anywhere_is_refused(sample: list[Phantom]) -> None:
    for phantom in sample[:24]:
        for share in (0.02, 0.3, 0.6, 0.9, 0.999):
            with pytest.raises(InvalidInput):
                decode(phantom.data[: int(len(phantom.data) * share)], side=32)


@pytest.mark.parametrize("name", SMALL)
def test_damaged_bytes_give_an_image_or_a_refusal(name: str) -> None:
    chance = np.random.default_rng(list(name.encode()))
    outcomes = {"image": 0, "refusal": 0}
    for _ in range(400):
        data = bytearray(SMALL[name])
        for place in chance.integers(0, len(data), chance.integers(1, 7)):
            data[place] = chance.integers(256)
        try:
            decode(bytes(data), side=16)
            outcomes["image"] += 1
        except DafhError:
            outcomes["refusal"] += 1
    assert all(outcomes.values())
