"""Native values inside fragments, as they are or deflated."""

from __future__ import annotations

import zlib
from dataclasses import replace

from dafh.imaging.elements import Tag
from dafh.imaging.limits import Limits
from dafh.imaging.pixels import PixelFormat, Stored, native_frame
from dafh.imaging.reader import PixelElement
from dafh.imaging.refusal import limit_exceeded


def encapsulated_uncompressed(stream: bytes, form: PixelFormat, _limits: Limits) -> Stored:
    """Decode Encapsulated Uncompressed Explicit VR Little Endian: PS3.5 A.4.11."""
    element = PixelElement(Tag.PIXEL_DATA, "OB", memoryview(stream), len(stream), little=True)
    return native_frame(element, replace(form, frames=1), 1)


def deflated_frame(stream: bytes, form: PixelFormat, limits: Limits) -> Stored:
    """Decode Deflated Image Frame Compression (PS3.5 A.4.13): no more than the frame needs."""
    needed = -(-form.frame_samples * form.allocated // 8)
    if needed > limits.inflated_bytes:
        raise limit_exceeded(
            Tag.PIXEL_DATA, "The inflated frame", "inflated_bytes", limits.inflated_bytes, needed
        )
    flat = zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream, needed)
    return encapsulated_uncompressed(flat, form, limits)
