"""JPEG XL (ISO/IEC 18181): PS3.5 8.2.15."""

from __future__ import annotations

import numpy as np

from dafh.imaging.codecs.streams import shape_of, with_sign
from dafh.imaging.limits import Limits
from dafh.imaging.pixels import Photometric, PixelFormat, Stored


def decode(stream: bytes, form: PixelFormat, _limits: Limits) -> Stored:
    """Decode the first frame of a codestream or container.

    The library compares the stream's header with the array before it decodes; values keep the bits
    they have in the stream.
    """
    import imagecodecs

    out = np.empty(shape_of(form), np.uint8 if form.stored <= 8 else np.uint16)
    # The orientation is the data set's matter.
    imagecodecs.jpegxl_decode(stream, index=0, keeporientation=True, numthreads=1, out=out)
    photometric = Photometric.RGB if form.samples == 3 else form.photometric
    return with_sign(out, form.stored, form, photometric)
