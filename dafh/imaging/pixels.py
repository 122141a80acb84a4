"""How an instance says its pixels are stored, and the stored values of one frame.

Image Pixel module: PS3.3 C.7.6.3; native pixel data: PS3.5 8.1, 8.2, D.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dafh.errors import InvalidInput, Reason
from dafh.imaging.elements import DataSet, Tag
from dafh.imaging.limits import Limits
from dafh.imaging.reader import PixelElement
from dafh.imaging.refusal import (
    limit_exceeded,
    malformed,
    photometric_unsupported,
    tag_name,
    undecodable,
)

#: Stored values as decoded: int8 to int64, uint8 to uint64, float32 or float64.
StoredValues = NDArray[np.number[Any]]


class Photometric(StrEnum):
    """Colour models that are understood (PS3.3 C.7.6.3.1.2)."""

    MONOCHROME1 = "MONOCHROME1"
    MONOCHROME2 = "MONOCHROME2"
    PALETTE_COLOR = "PALETTE COLOR"
    RGB = "RGB"
    YBR_FULL = "YBR_FULL"
    YBR_FULL_422 = "YBR_FULL_422"
    YBR_PARTIAL_422 = "YBR_PARTIAL_422"
    YBR_PARTIAL_420 = "YBR_PARTIAL_420"
    YBR_ICT = "YBR_ICT"
    YBR_RCT = "YBR_RCT"
    XYB = "XYB"


ONE_SAMPLE = (Photometric.MONOCHROME1, Photometric.MONOCHROME2, Photometric.PALETTE_COLOR)

#: Element that holds the pixels -> bits of a float value; integers are described by the data set.
FLOAT_BITS = {int(Tag.FLOAT_PIXEL_DATA): 32, int(Tag.DOUBLE_FLOAT_PIXEL_DATA): 64}


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """The Image Pixel module of an instance, checked."""

    rows: int
    columns: int
    samples: int
    photometric: Photometric
    frames: int
    #: 1, 8, 16, 32 or 64.
    allocated: int
    stored: int
    high_bit: int
    signed: bool
    #: Planar Configuration: samples lie plane by plane, not pixel by pixel.
    by_plane: bool
    floating: bool

    @property
    def frame_samples(self) -> int:
        """Samples of one frame."""
        return self.rows * self.columns * self.samples


@dataclass(frozen=True, slots=True)
class Stored:
    """The stored values of one frame, after decoding of the transfer syntax and before any LUT."""

    #: ``[rows, columns]`` or ``[rows, columns, samples]``.
    values: StoredValues
    #: Significant bits of a value.
    bits: int
    #: As the values are, where a codec has changed it.
    photometric: Photometric

    def sha256(self) -> str:
        """Return the content hash: rows, columns, samples, bits, sign and the values, no more.

        Values are hashed in the smallest container of 1, 2, 4 or 8 bytes, little endian, pixel by
        pixel: the same pixels have the same hash in every transfer syntax and container.
        """
        rows, columns = self.values.shape[:2]
        samples = self.values.shape[2] if self.values.ndim == 3 else 1
        kind = self.values.dtype.kind
        size = next(size for size in (1, 2, 4, 8) if self.bits <= 8 * size)
        header = f"{rows},{columns},{samples},{self.bits},{kind}\n".encode()
        body = np.ascontiguousarray(self.values, np.dtype(f"<{kind}{size}"))
        digest = hashlib.sha256(header)
        digest.update(body.data)
        return digest.hexdigest()


def pixel_format(data_set: DataSet, pixels: PixelElement, limits: Limits) -> PixelFormat:
    """Read and check the Image Pixel module.

    Raises
    ------
    InvalidInput
        DICOM_MALFORMED, PHOTOMETRIC_UNSUPPORTED, or LIMIT_EXCEEDED.
    """
    floating = pixels.tag in FLOAT_BITS
    photometric = _photometric(data_set)
    samples = data_set.integer(Tag.SAMPLES_PER_PIXEL, 1 if photometric in ONE_SAMPLE else 3)
    if samples != (1 if photometric in ONE_SAMPLE else 3):
        raise malformed(Tag.SAMPLES_PER_PIXEL, f"{samples} samples cannot be {photometric}")
    allocated = FLOAT_BITS.get(pixels.tag) or data_set.integer(Tag.BITS_ALLOCATED)
    if allocated not in (1, 8, 16, 32, 64):
        raise malformed(Tag.BITS_ALLOCATED, f"{allocated} is not 1, 8, 16, 32 or 64")
    if allocated == 1 and samples != 1:
        raise malformed(Tag.BITS_ALLOCATED, f"1 bit cannot be {photometric}")
    stored = allocated if floating else data_set.integer(Tag.BITS_STORED, allocated)
    high_bit = stored - 1 if floating else data_set.integer(Tag.HIGH_BIT, stored - 1)
    if not 1 <= stored <= allocated:
        raise malformed(Tag.BITS_STORED, f"{stored} bits do not fit into {allocated}")
    if not stored - 1 <= high_bit < allocated:
        raise malformed(Tag.HIGH_BIT, f"{high_bit} with {stored} of {allocated} bits stored")
    found = PixelFormat(
        rows=_positive(data_set, Tag.ROWS),
        columns=_positive(data_set, Tag.COLUMNS),
        samples=samples,
        photometric=photometric,
        frames=max(1, data_set.integer(Tag.NUMBER_OF_FRAMES, 1)),
        allocated=allocated,
        stored=stored,
        high_bit=high_bit,
        signed=not floating and data_set.integer(Tag.PIXEL_REPRESENTATION, 0) == 1,
        by_plane=samples > 1 and data_set.integer(Tag.PLANAR_CONFIGURATION, 0) == 1,
        floating=floating,
    )
    check_size(found.rows, found.columns, samples, found.frames, limits)
    return found


def check_size(rows: int, columns: int, samples: int, frames: int, limits: Limits) -> None:
    """Refuse what would take too much memory or time, before any of it is decoded.

    Raises
    ------
    InvalidInput
        LIMIT_EXCEEDED.
    """
    size = f"Rows {tag_name(Tag.ROWS)} x Columns {tag_name(Tag.COLUMNS)} x samples"
    one = rows * columns * samples
    if one > limits.frame_samples:
        raise limit_exceeded(Tag.ROWS, size, "frame_samples", limits.frame_samples, one)
    if frames > limits.frames:
        raise limit_exceeded(
            Tag.NUMBER_OF_FRAMES, "Number of Frames", "frames", limits.frames, frames
        )
    if one * frames > limits.instance_samples:
        raise limit_exceeded(
            Tag.ROWS, f"{size} x frames", "instance_samples", limits.instance_samples, one * frames
        )


def native_frame(pixels: PixelElement, form: PixelFormat, frame: int) -> Stored:
    """Return one frame of native (not encapsulated) pixel data.

    Parameters
    ----------
    pixels
        The pixel data element.
    form
        Its format.
    frame
        From 1.

    Raises
    ------
    InvalidInput
        PIXELS_UNDECODABLE: there are fewer bytes than the header promises; DICOM_MALFORMED: pixels
        that share their colour in pairs, but an odd number of columns.
    """
    # PS3.3 C.7.6.3.1.2: both 4:2:2 forms hold Y Y Cb Cr for two pixels; that is two bytes a pixel.
    half = form.photometric in (Photometric.YBR_FULL_422, Photometric.YBR_PARTIAL_422)
    if half and form.columns % 2:
        raise malformed(Tag.COLUMNS, f"an odd number cannot be {form.photometric}")
    samples = form.rows * form.columns * (2 if half else form.samples)
    bits = samples * form.allocated
    needed = -(-bits * form.frames // 8)
    available = len(pixels.value)
    if available < needed:
        raise undecodable(f"{needed} bytes are promised, {available} are there", _name(pixels))
    if form.allocated == 1:
        return _packed_bits(pixels, form, frame)
    size = form.allocated // 8
    start = bits // 8 * (frame - 1)
    raw = _octets(pixels, start, start + size * samples) if size == 1 else pixels.value[start:]
    kind = "f" if form.floating else "u"
    order = "<" if pixels.little else ">"
    flat = np.frombuffer(raw, f"{order}{kind}{size}", samples)
    if half:
        luma = flat.reshape(-1, 4)[:, :2].reshape(form.rows, form.columns)
        return Stored(luma, form.stored, form.photometric)
    values = significant(shaped(flat, form), form)
    return Stored(values, form.stored, form.photometric)


def has_whole_chroma(pixels: PixelElement, form: PixelFormat) -> bool:
    """Say whether native pixels that claim to be YBR_FULL_422 are as many as those of YBR_FULL.

    So they are where a writer has decompressed JPEG and kept the label.
    """
    return (
        form.photometric is Photometric.YBR_FULL_422
        and not pixels.encapsulated
        and 8 * len(pixels.value) >= form.frame_samples * form.frames * form.allocated
    )


def shaped(flat: StoredValues, form: PixelFormat) -> StoredValues:
    """Return flat samples as ``[rows, columns]`` or ``[rows, columns, samples]``."""
    if form.samples == 1:
        return flat.reshape(form.rows, form.columns)
    if form.by_plane:
        return flat.reshape(form.samples, form.rows, form.columns).transpose(1, 2, 0)
    return flat.reshape(form.rows, form.columns, form.samples)


def significant(values: StoredValues, form: PixelFormat) -> StoredValues:
    """Return values in native byte order without the bits outside Bits Stored (PS3.5 8.1.1).

    What lies in the other bits is no part of the value: old files keep overlays there.
    """
    if form.floating:
        return values.astype(values.dtype.newbyteorder("="))
    size = form.allocated // 8
    unsigned = values.astype(f"u{size}", copy=False)
    left = form.allocated - 1 - form.high_bit
    right = form.allocated - form.stored
    if right == 0:
        return unsigned.view(f"i{size}") if form.signed else unsigned
    if left + form.stored == form.allocated and not form.signed:
        # As scanners write it: most have nothing in the other bits, and looking costs less.
        mask = unsigned.dtype.type((1 << form.stored) - 1)
        return unsigned if unsigned.max() <= mask else np.bitwise_and(unsigned, mask)
    # Shifting up drops the bits above; shifting down drops those below and extends the sign.
    raised = np.left_shift(unsigned, left)
    lowered: StoredValues = np.right_shift(
        raised.view(f"i{size}") if form.signed else raised, right
    )
    return lowered


def _packed_bits(pixels: PixelElement, form: PixelFormat, frame: int) -> Stored:
    """Return a frame of single bits: least significant bit first, frames not on byte borders."""
    first = form.frame_samples * (frame - 1)
    stop = first + form.frame_samples
    octets = _octets(pixels, first // 8, -(-stop // 8))
    bits = np.unpackbits(octets, bitorder="little")[first % 8 :][: form.frame_samples]
    return Stored(shaped(bits, form), 1, form.photometric)


def _octets(pixels: PixelElement, start: int, stop: int) -> NDArray[np.uint8]:
    """Return some bytes in order: those of a big-endian OW lie in swapped pairs (PS3.5 D.3)."""
    if pixels.vr != "OW" or pixels.little:
        return np.frombuffer(pixels.value, np.uint8, stop - start, start)
    even = start - start % 2
    swapped = pixels.value[even : stop + stop % 2]
    if len(swapped) % 2:
        raise undecodable("the last pair of bytes is cut short", _name(pixels))
    pairs = np.frombuffer(swapped, np.uint8).reshape(-1, 2)
    # Of a single pair `reshape` would be a view that runs backwards.
    return pairs[:, ::-1].flatten()[start - even : stop - even]


def _photometric(data_set: DataSet) -> Photometric:
    text = data_set.text(Tag.PHOTOMETRIC_INTERPRETATION)
    if not text:
        raise photometric_unsupported("is missing: whether black is low or high is unknown")
    if text not in set(Photometric):
        raise photometric_unsupported("is none of those understood")
    return Photometric(text)


def _positive(data_set: DataSet, tag: Tag) -> int:
    number = data_set.integer(tag)
    if number < 1:
        raise malformed(tag, f"{number} is not positive")
    return number


def _name(pixels: PixelElement) -> str:
    return tag_name(pixels.tag)


def frame_number(data_set: DataSet, frames: int, frame: int, representative: int) -> int:
    """Return which frame to take, from 1.

    `representative` asks for Representative Frame Number (0028,6010) where the file names one that
    exists, else for the middle frame, the later of two: the ends of a stack show least.

    Raises
    ------
    InvalidInput
        FRAME_OUT_OF_RANGE.
    """
    if frame == representative:
        named = data_set.integer(Tag.REPRESENTATIVE_FRAME_NUMBER, 0)
        return named if 1 <= named <= frames else frames // 2 + 1
    if not 1 <= frame <= frames:
        raise InvalidInput(
            Reason.FRAME_OUT_OF_RANGE,
            f"Frame {frame} does not exist: Number of Frames (0028,0008) is {frames}.",
            remedy=f"Ask for a frame from 1 to {frames}.",
            subject=tag_name(Tag.NUMBER_OF_FRAMES),
        )
    return frame
