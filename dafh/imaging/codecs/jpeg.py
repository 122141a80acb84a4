"""JPEG, sequential, progressive and lossless (ITU-T T.81), and JPEG-LS (T.87)."""

from __future__ import annotations

import numpy as np

from dafh.imaging.codecs.markers import (
    BASELINE,
    END_OF_IMAGE,
    EXTENDED,
    JPEG_LS,
    LOSSLESS,
    PROGRESSIVE,
    JpegStream,
    read_jpeg,
)
from dafh.imaging.codecs.streams import Unserved, Unsigned, match, with_sign
from dafh.imaging.limits import Limits
from dafh.imaging.pixels import Photometric, PixelFormat, Stored
from dafh.imaging.refusal import undecodable

#: Processes with Huffman coding, without hierarchy: what libjpeg-turbo decodes, at 2 to 16 bit.
HUFFMAN = frozenset({BASELINE, EXTENDED, PROGRESSIVE, LOSSLESS})

#: Scans of one stream: each takes the time of a whole image. Progressive writers make about ten.
MOST_SCANS = 64

#: What stands for data that are not there: no marker, and a one first. libjpeg fills in zeros, so
#: whatever symbol is missing becomes another one.
OTHER_END = bytes((0xA5 + 97 * place) % 0xFF for place in range(64))


def decode(stream: bytes, form: PixelFormat, _limits: Limits) -> Stored:
    """Decode by the process that the stream names: labels mix up JPEG and JPEG-LS (PS3.5 A.4)."""
    header = read_jpeg(stream)
    match(form, header.rows, header.columns, len(header.components), header.precision)
    if header.process == JPEG_LS:
        return with_sign(decode_jpeg_ls(stream), header.precision, form, form.photometric)
    photometric = form.photometric
    if form.samples == 3 and header.process != LOSSLESS:
        # PS3.5 8.2.1: the stream's own word on its colours outweighs the data set's.
        says_rgb = photometric is Photometric.RGB if header.is_rgb is None else header.is_rgb
        photometric = Photometric.RGB if says_rgb else Photometric.YBR_FULL
    return with_sign(decode_jpeg(stream, header), header.precision, form, photometric)


def decode_jpeg(stream: bytes, header: JpegStream) -> Unsigned:
    """Return the components of a JPEG stream as coded, without any colour conversion.

    libjpeg fills in what is missing at the end of a stream and only warns, to nobody. So where data
    may be missing they are decoded again with other bytes behind them: a whole picture does not
    change. A stream without End of Image marker, or with padding before or behind it, is whole; but
    a progressive one without it may lack whole scans.

    Parameters
    ----------
    stream
        The stream.
    header
        Its header, checked.

    Returns
    -------
    Unsigned
        uint8 or uint16 ``[rows, columns]`` or ``[rows, columns, components]``.

    Raises
    ------
    Unserved
        Hierarchical or arithmetic-coded processes.
    InvalidInput
        PIXELS_UNDECODABLE: data are missing at the end, or there are too many scans.
    """
    if header.process not in HUFFMAN:
        raise Unserved(f"with process SOF{header.process - BASELINE}")
    # Inside coded data the two bytes cannot occur (T.81 B.1.1.5).
    if stream.count(b"\xff\xda", header.scan) >= MOST_SCANS:
        raise undecodable(f"the JPEG stream has more than {MOST_SCANS} scans")
    values = _turbo(stream, header)
    end = stream.rfind(END_OF_IMAGE, header.scan)
    # Rows that have no data are filled with the middle of the range.
    filled = values[-1, -1].flat[0] == 1 << (header.precision - 1)
    if end < 0 or filled or header.process == PROGRESSIVE:
        coded = stream[: end if end >= 0 else len(stream)].rstrip(b"\xff")
        other = _turbo(coded + OTHER_END + END_OF_IMAGE, header)
        if (end < 0 and header.process == PROGRESSIVE) or not np.array_equal(values, other):
            raise undecodable("the JPEG stream ends before the picture does")
    return values


def _turbo(stream: bytes, header: JpegStream) -> Unsigned:
    import imagecodecs

    components = len(header.components)
    # The same colour model in and out: nothing is converted, whatever application data say.
    model = {1: "GRAYSCALE", 3: "YCBCR", 4: "CMYK"}.get(components)
    shape = (header.rows, header.columns, components)
    # The library checks that the array fits before it decodes.
    out = np.empty(
        shape if components > 1 else shape[:2], np.uint8 if header.precision <= 8 else np.uint16
    )
    return imagecodecs.jpeg8_decode(stream, colorspace=model, outcolorspace=model, out=out)


def decode_jpeg_ls(stream: bytes) -> Unsigned:
    """Return the components of a JPEG-LS stream, uint8 or uint16, pixel by pixel.

    CharLS knows when data are missing, but insists on the End of Image marker that some writers
    forget: a second one does no harm.
    """
    import imagecodecs

    return imagecodecs.jpegls_decode(stream + END_OF_IMAGE)
