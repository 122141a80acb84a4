"""Streams of one frame in every transfer syntax that is decoded, by encoders of others."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import imagecodecs
import jpeg_ls  # type: ignore[import-untyped]  # the package carries no types
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import RLELosslessEncoder

from .instances import write_instance

Values = NDArray[Any]
Encode = Callable[[Values, int], bytes]
#: Of an encoder of imagecodecs.
Option = bool | int | float | str | None


def encoded(values: Values, syntax: str, bits: int | None = None) -> bytes:
    """Return the compressed stream of a frame.

    Parameters
    ----------
    values
        Integers ``[rows, columns]`` or ``[rows, columns, 3]``; three samples are RGB.
    syntax
        Transfer syntax UID, one of `ENCODERS`.
    bits
        Significant bits of a value; those of the container where it is not said.
    """
    return bytes(ENCODERS[syntax](values, bits or 8 * values.dtype.itemsize))


def picture(rows: int, columns: int, bits: int, *, samples: int = 1, seed: int = 0) -> Values:
    """Return a smooth picture with noise that uses the whole range of its bits."""
    chance = np.random.default_rng(seed)
    y, x = np.mgrid[0:rows, 0:columns]
    planes = [np.sin(x / (9 + plane)) + np.cos(y / (7 + plane)) for plane in range(samples)]
    smooth = (np.stack(planes, axis=2) + 2) / 4
    noisy = smooth + chance.normal(0, 0.004, smooth.shape)
    values = np.clip(np.rint(noisy * 2**bits), 0, 2**bits - 1)
    values = values.astype(np.uint8 if bits <= 8 else np.uint16)
    found: Values = values if samples > 1 else values[..., 0]
    return found


def signed(values: Values, bits: int) -> Values:
    """Return values with their range moved to lie around zero."""
    moved: Values = (values.astype(np.int32) - 2 ** (bits - 1)).astype(f"i{values.dtype.itemsize}")
    return moved


def unsigned(values: Values, bits: int) -> Values:
    """Return values as a codec without signs wants them: the bits above are zero."""
    plain = np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")
    masked: Values = plain & plain.dtype.type((1 << bits) - 1)
    return masked


def jpeg(values: Values, bits: int, **options: Option) -> bytes:
    """Encode as JPEG, RGB as RGB; 8 bit, 12 bit, or 2 to 16 bit where it is lossless."""
    model = "RGB" if values.ndim == 3 else None
    encode: Callable[..., bytes | bytearray] = imagecodecs.jpeg8_encode
    options = {"colorspace": model, "outcolorspace": model, "bitspersample": bits, **options}
    return bytes(encode(unsigned(values, bits), **options))


def progressive(values: Values, _bits: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "JPEG", quality=95, progressive=True, keep_rgb=True)
    return stream.getvalue()


def jpeg_ls_stream(values: Values, bits: int, *, near: int = 0, interleave: int = 2) -> bytes:
    samples = 1 if values.ndim == 2 else values.shape[2]
    plain = unsigned(values, bits)
    return bytes(
        jpeg_ls.encode_buffer(
            (plain.transpose(2, 0, 1) if samples > 1 and interleave == 0 else plain).tobytes(),
            rows=values.shape[0],
            columns=values.shape[1],
            samples_per_pixel=samples,
            bits_stored=bits,
            lossy_error=near,
            interleave_mode=interleave if samples > 1 else 0,
        )
    )


def jpeg_2000(values: Values, bits: int, **options: Option) -> bytes:
    encode: Callable[..., bytes | bytearray] = imagecodecs.jpeg2k_encode
    options = {"codecformat": "J2K", "numthreads": 1, "mct": values.ndim == 3, **options}
    return bytes(encode(np.ascontiguousarray(values), bitspersample=bits, **options))


def high_throughput(values: Values, _bits: int, **options: Option) -> bytes:
    encode: Callable[..., bytes | bytearray] = imagecodecs.htj2k_encode
    return bytes(encode(np.ascontiguousarray(values), planar=False, **options))


def jpeg_xl(values: Values, bits: int, **options: Option) -> bytes:
    encode: Callable[..., bytes | bytearray] = imagecodecs.jpegxl_encode
    options = {"bitspersample": bits, "effort": 3, "numthreads": 1, **options}
    return bytes(encode(unsigned(values, bits), **options))


def jpeg_xl_of_jpeg(values: Values, bits: int) -> bytes:
    return bytes(imagecodecs.jpegxl_encode_jpeg(jpeg(values, bits, level=95), numthreads=1))


def rle(values: Values, bits: int) -> bytes:
    rows, columns = values.shape[:2]
    size = values.dtype.itemsize
    return RLELosslessEncoder.encode(
        np.ascontiguousarray(values).tobytes(),
        encoding_plugin="pydicom",
        rows=rows,
        columns=columns,
        samples_per_pixel=values.shape[2] if values.ndim == 3 else 1,
        photometric_interpretation="RGB" if values.ndim == 3 else "MONOCHROME2",
        number_of_frames=1,
        bits_allocated=8 * size,
        bits_stored=bits,
        pixel_representation=int(values.dtype.kind == "i"),
        planar_configuration=0,
    )


def raw(values: Values, _bits: int) -> bytes:
    return np.ascontiguousarray(values).tobytes()


def deflated(values: Values, bits: int) -> bytes:
    squeezer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return squeezer.compress(raw(values, bits)) + squeezer.flush()


def write_compressed(
    frames: Sequence[Values],
    syntax: str,
    bits: int,
    elements: Mapping[str, Any],
    pixels: bytes | None = None,
) -> bytes:
    """Return a DICOM file of compressed frames; `pixels`, encapsulated, in the place of ours."""
    if pixels is None:
        streams = [encoded(frame, syntax, bits) for frame in frames]
        pixels = encapsulate([stream + b"\0" * (len(stream) % 2) for stream in streams])
    # pydicom does not write what is younger than its list: another UID of that length goes first.
    writable = {PREFIX + "8.1": PREFIX + "7.1"}.get(syntax, syntax)
    writable = PREFIX + "4.201" if syntax.startswith(PREFIX + "4.11") else writable
    data = write_instance(
        frames[0],
        syntax=writable,
        NumberOfFrames=len(frames),
        BitsStored=bits,
        HighBit=bits - 1,
        PixelData=pixels,
        **elements,
    )
    return data.replace(writable.encode(), syntax.encode())


PREFIX = "1.2.840.10008.1.2."
#: Transfer syntax UID -> bits of a value that its streams hold; 16 in the others.
MOST_BITS = {PREFIX + "4.50": 8, PREFIX + "4.51": 12, PREFIX + "4.55": 8, PREFIX + "4.111": 8}
#: Transfer syntax UID -> encoder.
ENCODERS: dict[str, Encode] = {
    PREFIX + "1.98": raw,
    PREFIX + "4.50": partial(jpeg, level=95),
    PREFIX + "4.51": partial(jpeg, level=95),
    PREFIX + "4.55": progressive,
    PREFIX + "4.57": partial(jpeg, lossless=True, predictor=6),
    PREFIX + "4.70": partial(jpeg, lossless=True, predictor=1),
    PREFIX + "4.80": jpeg_ls_stream,
    PREFIX + "4.81": partial(jpeg_ls_stream, near=2),
    PREFIX + "4.90": partial(jpeg_2000, reversible=True),
    PREFIX + "4.91": partial(jpeg_2000, reversible=False, level=60),
    PREFIX + "4.110": partial(jpeg_xl, lossless=True),
    PREFIX + "4.111": jpeg_xl_of_jpeg,
    PREFIX + "4.112": partial(jpeg_xl, distance=0.1),
    PREFIX + "4.201": partial(high_throughput, reversible=True),
    PREFIX + "4.203": partial(high_throughput, level=0.0005),
    PREFIX + "5": rle,
    PREFIX + "8.1": deflated,
}
