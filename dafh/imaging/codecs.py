"""The compressed transfer syntaxes: a table of codecs, each a small function.

A codec gets the stream of one frame and the format that the data set promises. It looks at the
stream's own header first, so that nothing larger than promised is ever allocated.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jpeg_ls  # type: ignore[import-untyped]  # the package carries no types
import numpy as np
from numpy.typing import NDArray
from openjpeg.utils import decode_pixel_data as decode_jpeg_2000
from openjpeg.utils import get_parameters as read_jpeg_2000
from PIL.JpegImagePlugin import JpegImageFile
from pydicom.uid import AllTransferSyntaxes
from rle.utils import decode_pixel_data as decode_rle

from dafh.errors import InvalidInput, Reason
from dafh.imaging.elements import Tag
from dafh.imaging.jpeg import JPEG_LS, JpegStream, read_jpeg
from dafh.imaging.limits import Limits
from dafh.imaging.pixels import Photometric, PixelFormat, Stored, shaped, significant
from dafh.imaging.reader import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, inflate
from dafh.imaging.refusal import undecodable

NATIVE = frozenset({IMPLICIT_LITTLE, EXPLICIT_LITTLE, DEFLATED, EXPLICIT_BIG})

#: What libraries raise when handed damaged bytes; anything else is a fault of our own.
CODEC_FAULTS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

#: Transfer syntaxes that DICOM lists (PS3.6 A) -> name.
SYNTAX_NAMES = {str(uid): uid.name for uid in AllTransferSyntaxes}

Decoder = Callable[[bytes, PixelFormat, Limits], Stored]


@dataclass(frozen=True, slots=True)
class Codec:
    """How one transfer syntax is decoded."""

    decode: Decoder
    #: Each frame is one fragment.
    one_each: bool = False


def codec_for(transfer_syntax: str) -> Codec:
    """Return the codec of a compressed transfer syntax.

    Raises
    ------
    InvalidInput
        TRANSFER_SYNTAX_UNSUPPORTED.
    """
    codec = CODECS.get(transfer_syntax)
    if codec is None:
        raise syntax_unsupported(transfer_syntax)
    return codec


def syntax_unsupported(transfer_syntax: str, detail: str = "") -> InvalidInput:
    """Return the refusal of a transfer syntax; one that DICOM does not list is not repeated."""
    known = SYNTAX_NAMES.get(transfer_syntax)
    name = f"{known} ({transfer_syntax})" if known else "a private or unknown transfer syntax"
    return InvalidInput(
        Reason.TRANSFER_SYNTAX_UNSUPPORTED,
        f"No codec decodes {name}{detail}: Transfer Syntax UID (0002,0010).",
        remedy="Send it uncompressed (Explicit VR Little Endian), as JPEG-LS or as JPEG 2000.",
        subject="(0002,0010)",
    )


def decode_frame(codec: Codec, stream: bytes, form: PixelFormat, limits: Limits) -> Stored:
    """Decode the stream of one frame.

    Raises
    ------
    InvalidInput
        PIXELS_UNDECODABLE, TRANSFER_SYNTAX_UNSUPPORTED, or LIMIT_EXCEEDED.
    """
    try:
        return codec.decode(stream, form, limits)
    except CODEC_FAULTS:
        # Its words are not repeated: they may quote the stream.
        raise undecodable("the compressed stream is damaged or cut short") from None


def _rle(stream: bytes, form: PixelFormat, _limits: Limits) -> Stored:
    """RLE Lossless: PS3.5 G. Samples come plane by plane."""
    flat = decode_rle(
        stream, version=2, rows=form.rows, columns=form.columns, bits_allocated=form.allocated
    )
    if form.allocated == 1:
        values = np.frombuffer(flat, np.uint8, form.frame_samples).reshape(form.rows, form.columns)
        return Stored(values, 1, form.photometric)
    samples = np.frombuffer(flat, f"<u{form.allocated // 8}", form.frame_samples)
    planes = samples.reshape(form.samples, form.rows, form.columns)
    by_pixel = planes[0] if form.samples == 1 else planes.transpose(1, 2, 0)
    return Stored(significant(by_pixel, form), form.stored, form.photometric)


def _deflated_frame(stream: bytes, form: PixelFormat, limits: Limits) -> Stored:
    """Deflated Image Frame Compression: PS3.5 A.4.13 (10.20)."""
    flat = inflate(stream, limits.inflated_bytes, Tag.PIXEL_DATA)
    if form.allocated == 1:
        octets = np.frombuffer(flat, np.uint8, -(-form.frame_samples // 8))
        bits = np.unpackbits(octets, bitorder="little")[: form.frame_samples]
        return Stored(shaped(bits, form), 1, form.photometric)
    samples = np.frombuffer(flat, f"<u{form.allocated // 8}", form.frame_samples)
    return Stored(significant(shaped(samples, form), form), form.stored, form.photometric)


def _jpeg(stream: bytes, form: PixelFormat, limits: Limits) -> Stored:
    """JPEG processes 1 to 4 at 8 bit (PS3.5 A.4.1); a mislabelled JPEG-LS stream goes its way."""
    header = read_jpeg(stream)
    if header.process == JPEG_LS:
        return _jpeg_ls(stream, form, limits)
    _match(form, header.rows, header.columns, len(header.components))
    if header.process > 0xC2 or header.precision != 8:
        detail = f" with process SOF{header.process - 0xC0} at {header.precision} bit"
        raise syntax_unsupported("1.2.840.10008.1.2.4.51", detail)
    values = decode_jpeg(header)
    photometric = form.photometric
    if form.samples == 3:
        # PS3.5 8.2.1: the stream's own word on its colours outweighs the data set's.
        says_rgb = photometric is Photometric.RGB if header.is_rgb is None else header.is_rgb
        photometric = Photometric.RGB if says_rgb else Photometric.YBR_FULL
    return Stored(values, 8, photometric)


def decode_jpeg(header: JpegStream) -> NDArray[np.uint8]:
    """Return the components of an 8-bit JPEG stream as coded, without any colour conversion.

    Returns
    -------
    NDArray[np.uint8]
        ``[rows, columns]`` or ``[rows, columns, 3]``.
    """
    with JpegImageFile(io.BytesIO(header.bare)) as image:
        if len(header.components) == 3 and header.components != tuple(b"RGB"):
            # Without application data Pillow takes three components for YCbCr unless their names
            # are RGB; asked for YCbCr it hands them over unconverted.
            image.draft("YCbCr", image.size)
        return np.asarray(image, np.uint8)


def _jpeg_ls(stream: bytes, form: PixelFormat, _limits: Limits) -> Stored:
    """JPEG-LS: PS3.5 A.4.3. The stream knows no sign: it is extended here."""
    header = read_jpeg(stream)
    _match(form, header.rows, header.columns, len(header.components))
    decoded, info = jpeg_ls.decode_pixel_data(stream)
    flat = np.frombuffer(decoded, f"<u{-(-header.precision // 8)}")
    if form.samples == 3 and info["interleave_mode"] == 0:
        values = flat.reshape(form.samples, form.rows, form.columns).transpose(1, 2, 0)
    else:
        values = flat.reshape(_shape(form))
    return _with_sign(values, header.precision, form, form.photometric)


def _jpeg_2000(stream: bytes, form: PixelFormat, _limits: Limits) -> Stored:
    """JPEG 2000 and High-Throughput JPEG 2000: PS3.5 A.4.4; also wrapped as JP2 file."""
    header = read_jpeg_2000(stream)
    _match(form, header["rows"], header["columns"], header["samples_per_pixel"])
    precision = int(header["precision"])
    size = next(size for size in (1, 2, 4) if precision <= 8 * size)
    flat = np.frombuffer(decode_jpeg_2000(stream, version=2), f"<u{size}")
    photometric = form.photometric
    if photometric in (Photometric.YBR_RCT, Photometric.YBR_ICT):
        # PS3.5 8.2.4: the transform is part of the stream, and is undone with it.
        photometric = Photometric.RGB
    return _with_sign(flat.reshape(_shape(form)), precision, form, photometric)


def _with_sign(
    values: NDArray[np.unsignedinteger[Any]],
    precision: int,
    form: PixelFormat,
    photometric: Photometric,
) -> Stored:
    """Give unsigned containers the sign that Pixel Representation (0028,0103) says they have."""
    size = values.dtype.itemsize
    spare = 8 * size - precision
    raised = np.left_shift(values, spare)
    lowered = np.right_shift(raised.view(f"i{size}") if form.signed else raised, spare)
    return Stored(lowered, max(form.stored, precision), photometric)


def _shape(form: PixelFormat) -> tuple[int, ...]:
    shape = (form.rows, form.columns, form.samples)
    return shape if form.samples > 1 else shape[:2]


def _match(form: PixelFormat, rows: object, columns: object, samples: object) -> None:
    """Refuse a stream that is not of the size the data set promises."""
    if (rows, columns, samples) != (form.rows, form.columns, form.samples):
        raise undecodable(
            f"the stream is {rows} x {columns} x {samples}, "
            f"the data set says {form.rows} x {form.columns} x {form.samples}"
        )


#: Transfer syntax UID (PS3.6 A) -> codec. A new codec is a function above and a row here.
CODECS: dict[str, Codec] = {
    "1.2.840.10008.1.2.4.50": Codec(_jpeg),
    "1.2.840.10008.1.2.4.51": Codec(_jpeg),
    "1.2.840.10008.1.2.4.80": Codec(_jpeg_ls),
    "1.2.840.10008.1.2.4.81": Codec(_jpeg_ls),
    "1.2.840.10008.1.2.4.90": Codec(_jpeg_2000),
    "1.2.840.10008.1.2.4.91": Codec(_jpeg_2000),
    "1.2.840.10008.1.2.4.201": Codec(_jpeg_2000),
    "1.2.840.10008.1.2.4.202": Codec(_jpeg_2000),
    "1.2.840.10008.1.2.4.203": Codec(_jpeg_2000),
    "1.2.840.10008.1.2.5": Codec(_rle, one_each=True),
    "1.2.840.10008.1.2.8.1": Codec(_deflated_frame, one_each=True),
}
