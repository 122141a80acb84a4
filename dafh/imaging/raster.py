"""PNG and JPEG images, for research: the same limits as for DICOM, and no metadata at all."""

from __future__ import annotations

import io
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile
from pydicom.uid import JPEGBaseline8Bit

from dafh.imaging.codecs import CODEC_FAULTS, library_missing
from dafh.imaging.codecs.jpeg import decode_jpeg
from dafh.imaging.codecs.markers import LOSSLESS, read_jpeg
from dafh.imaging.codecs.streams import Unserved
from dafh.imaging.colour import rgb_to_grey, to_eight_bits
from dafh.imaging.limits import Limits
from dafh.imaging.pixels import Photometric, Stored, check_size
from dafh.imaging.refusal import photometric_unsupported, undecodable

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

#: The chunks that make the picture (W3C PNG 11): all else is text, profiles and times.
PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})

#: Chunks of a file; each costs some time. Writers put 8 KiB of the picture into one.
MOST_CHUNKS = 2**16

#: PNG colour type (W3C PNG 11.2.1) -> samples that its decoding takes.
PNG_SAMPLES = {0: 1, 2: 3, 3: 4, 4: 2, 6: 4}

#: Pillow's mode -> the mode that it is brought to. Opacity is dropped: there is nothing beneath.
PNG_MODES = {
    "1": "L",
    "L": "L",
    "LA": "L",
    "I": "I;16",
    "I;16": "I;16",
    "I;16B": "I;16",
    "P": "RGB",
    "PA": "RGB",
    "RGB": "RGB",
    "RGBA": "RGB",
}


def read_png(data: bytes, limits: Limits) -> tuple[Stored, NDArray[np.uint8]]:
    """Decode a PNG file.

    Returns
    -------
    tuple[Stored, NDArray[np.uint8]]
        The pixels, grey or RGB, and their luminance ``[rows, columns]``.

    Raises
    ------
    InvalidInput
        LIMIT_EXCEEDED, or PIXELS_UNDECODABLE.
    """
    bare, header = _bare_png(data)
    columns, rows = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    if header[9] not in PNG_SAMPLES or not rows or not columns:
        raise undecodable("the PNG header makes no sense", "IHDR")
    check_size(rows, columns, PNG_SAMPLES[header[9]], 1, limits)
    try:
        with PngImageFile(io.BytesIO(bare)) as image:
            mode = PNG_MODES[image.mode]
            same = image.mode == mode
            values = np.asarray(image if same else image.convert(mode))
    except CODEC_FAULTS:
        raise undecodable("the PNG stream is damaged or cut short", "IDAT") from None
    bits = 16 if mode == "I;16" else 8
    if mode == "RGB":
        return Stored(values, bits, Photometric.RGB), rgb_to_grey(values, bits)
    return Stored(values, bits, Photometric.MONOCHROME2), to_eight_bits(values, bits)


def read_jpeg_file(data: bytes, limits: Limits) -> tuple[Stored, NDArray[np.uint8]]:
    """Decode a JPEG file; as `read_png`.

    Raises
    ------
    InvalidInput
        LIMIT_EXCEEDED, PHOTOMETRIC_UNSUPPORTED (four components), or PIXELS_UNDECODABLE.
    """
    header = read_jpeg(data)
    samples, bits = len(header.components), header.precision
    if samples not in (1, 3):
        raise photometric_unsupported(f"of a JPEG with {samples} components")
    check_size(header.rows, header.columns, samples, 1, limits)
    try:
        values = decode_jpeg(data, header)
    except ImportError:
        raise library_missing(JPEGBaseline8Bit) from None
    except Unserved as unserved:
        raise undecodable(f"a JPEG file {unserved} is not read", "SOF") from None
    except CODEC_FAULTS:
        raise undecodable("the JPEG stream is damaged or cut short", "SOS") from None
    if samples == 1:
        return Stored(values, bits, Photometric.MONOCHROME2), to_eight_bits(values, bits)
    if header.is_rgb or header.process == LOSSLESS:
        return Stored(values, bits, Photometric.RGB), rgb_to_grey(values, bits)
    return Stored(values, bits, Photometric.YBR_FULL), to_eight_bits(values[..., 0], bits)


def _bare_png(data: bytes) -> tuple[bytes, bytes]:
    """Return the file with none but the picture's chunks, and the content of its header chunk."""
    kept, position, header = [PNG_SIGNATURE], len(PNG_SIGNATURE), b""
    for _ in range(MOST_CHUNKS):
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        stop = position + 12 + length
        if stop > len(data):
            raise undecodable("the PNG stream is cut short", "PNG")
        if kind in PNG_CHUNKS:
            kept.append(data[position:stop])
        if kind == b"IHDR":
            if header:
                # Decoders differ in which one they believe.
                raise undecodable("the PNG stream has two headers", "IHDR")
            header, checksum = data[position + 8 : stop - 4], data[stop - 4 : stop]
            if zlib.crc32(kind + header).to_bytes(4, "big") != checksum:
                raise undecodable("the PNG header is damaged", "IHDR")
        position = stop
        if kind == b"IEND":
            break
    else:
        raise undecodable(f"the PNG stream has more than {MOST_CHUNKS} chunks", "PNG")
    if len(header) != 13:
        raise undecodable("the PNG header is missing", "IHDR")
    return b"".join(kept), header
