"""The compressed transfer syntaxes: a table of codecs, each a small function.

A codec gets the stream of one frame and the format that the data set promises. It looks at the
stream's own header first, so that nothing larger than promised is ever allocated. The libraries
are imported when a frame first needs one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from pydicom.config import IGNORE
from pydicom.uid import UID

from dafh.errors import InvalidInput, Reason
from dafh.imaging.codecs import jpeg, jpeg_2000, jpeg_xl, native, rle
from dafh.imaging.codecs.streams import Unserved
from dafh.imaging.limits import Limits
from dafh.imaging.pixels import PixelFormat, Stored, significant
from dafh.imaging.reader import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from dafh.imaging.refusal import undecodable

NATIVE = frozenset({IMPLICIT_LITTLE, EXPLICIT_LITTLE, DEFLATED, EXPLICIT_BIG})

#: What libraries raise when handed damaged bytes; anything else is a fault of our own, but for
#: MemoryError, which the door of the package answers.
CODEC_FAULTS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

#: Transfer syntaxes that are younger than pydicom's list of them -> name (PS3.6 A).
RECENT = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}

Decoder = Callable[[bytes, PixelFormat, Limits], Stored]


@dataclass(frozen=True, slots=True)
class Codec:
    """How one transfer syntax is decoded."""

    #: UID (PS3.6 A).
    transfer_syntax: str
    decode: Decoder
    #: Cells come back as they were, with the bits beyond Bits Stored.
    lossless: bool
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


def syntax_name(transfer_syntax: str) -> str:
    """Return the name of a transfer syntax (PS3.6 A), "" of one that DICOM does not list."""
    listed = UID(transfer_syntax, IGNORE)
    return RECENT.get(listed) or (listed.name if listed.type == "Transfer Syntax" else "")


def syntax_unsupported(
    transfer_syntax: str,
    detail: str = "",
    remedy: str = "Send it uncompressed (Explicit VR Little Endian), as JPEG-LS or as JPEG 2000.",
) -> InvalidInput:
    """Return the refusal of a transfer syntax; one that DICOM does not list is not repeated."""
    known = syntax_name(transfer_syntax)
    name = f"{known} ({transfer_syntax})" if known else "a private or unknown transfer syntax"
    return InvalidInput(
        Reason.TRANSFER_SYNTAX_UNSUPPORTED,
        f"No codec decodes {name}{detail}: Transfer Syntax UID (0002,0010).",
        remedy=remedy,
        subject="(0002,0010)",
    )


def library_missing(transfer_syntax: str) -> InvalidInput:
    """Return the refusal of a transfer syntax whose codec is not installed here."""
    return syntax_unsupported(
        transfer_syntax,
        ", its library is not installed",
        "Have the operator run `pip install 'dafh[imaging]'`, or send it uncompressed.",
    )


def load_libraries() -> None:
    """Load the libraries of all codecs now, as a process wants that will be copied or shut in.

    Each comes with the first mention of its function; one that is missing is missed by the file
    that needs it.
    """
    with suppress(ImportError):
        from imagecodecs import (  # noqa: F401 - mentioned
            jpeg2k_decode,
            jpeg8_decode,
            jpegls_decode,
            jpegxl_decode,
            packbits_decode,
        )


def decode_frame(codec: Codec, stream: bytes, form: PixelFormat, limits: Limits) -> Stored:
    """Decode the stream of one frame.

    Raises
    ------
    InvalidInput
        PIXELS_UNDECODABLE, TRANSFER_SYNTAX_UNSUPPORTED, or LIMIT_EXCEEDED.
    """
    if form.floating:
        raise undecodable("floating-point pixel data are never compressed")
    try:
        stored = codec.decode(stream, form, limits)
    except ImportError:
        raise library_missing(codec.transfer_syntax) from None
    except Unserved as unserved:
        raise syntax_unsupported(codec.transfer_syntax, f" {unserved}") from None
    except CODEC_FAULTS:
        # Its words are not repeated: they may quote the stream.
        raise undecodable("the compressed stream is damaged or cut short") from None
    return _within_stored_bits(stored, codec, form)


def _within_stored_bits(stored: Stored, codec: Codec, form: PixelFormat) -> Stored:
    """Bring values from a stream of more bits to Bits Stored, so that they equal native ones.

    A lossless codec gives back whole cells: what lies in the other bits is no part of the value
    (PS3.5 8.1.1). A lossy one may overshoot: then the values stand, and have the stream's bits.
    """
    values = stored.values
    if stored.bits <= form.stored:
        return stored
    form = replace(form, signed=values.dtype.kind == "i")
    if codec.lossless and 8 * values.dtype.itemsize == form.allocated:
        return Stored(significant(values, form), form.stored, stored.photometric)
    low = -(1 << form.stored - 1) if form.signed else 0
    if low <= values.min() and values.max() < low + (1 << form.stored):
        return Stored(values, form.stored, stored.photometric)
    return stored


#: Transfer syntax UID -> codec. Retired ones are kept, archives hold them. Those missing cannot be
#: decoded from the file (JPIP), are video, or have no codec (arithmetic coding, hierarchies). A new
#: codec is a function in a file and a row here.
CODECS = {
    codec.transfer_syntax: codec
    for codec in (
        Codec("1.2.840.10008.1.2.1.98", native.encapsulated_uncompressed, True, one_each=True),
        Codec("1.2.840.10008.1.2.4.50", jpeg.decode, False),
        Codec("1.2.840.10008.1.2.4.51", jpeg.decode, False),
        Codec("1.2.840.10008.1.2.4.53", jpeg.decode, False),
        Codec("1.2.840.10008.1.2.4.55", jpeg.decode, False),
        Codec("1.2.840.10008.1.2.4.57", jpeg.decode, True),
        Codec("1.2.840.10008.1.2.4.70", jpeg.decode, True),
        Codec("1.2.840.10008.1.2.4.80", jpeg.decode, True),
        Codec("1.2.840.10008.1.2.4.81", jpeg.decode, False),
        Codec("1.2.840.10008.1.2.4.90", jpeg_2000.decode, True),
        Codec("1.2.840.10008.1.2.4.91", jpeg_2000.decode, False),
        Codec("1.2.840.10008.1.2.4.92", jpeg_2000.decode, True),
        Codec("1.2.840.10008.1.2.4.93", jpeg_2000.decode, False),
        Codec("1.2.840.10008.1.2.4.110", jpeg_xl.decode, True),
        Codec("1.2.840.10008.1.2.4.111", jpeg_xl.decode, False),
        Codec("1.2.840.10008.1.2.4.112", jpeg_xl.decode, False),
        Codec("1.2.840.10008.1.2.4.201", jpeg_2000.decode, True),
        Codec("1.2.840.10008.1.2.4.202", jpeg_2000.decode, True),
        Codec("1.2.840.10008.1.2.4.203", jpeg_2000.decode, False),
        Codec("1.2.840.10008.1.2.5", rle.decode, True, one_each=True),
        Codec("1.2.840.10008.1.2.8.1", native.deflated_frame, True, one_each=True),
    )
}
