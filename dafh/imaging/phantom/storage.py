"""How phantoms are stored: values to integers as each kind of scanner does it, and encodings."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)


@dataclass(frozen=True, slots=True)
class Stored:
    """Pixels as a scanner stores them, and the elements that give them meaning."""

    #: Integers ``[rows, columns]`` or ``[rows, columns, 3]``.
    values: NDArray[Any]
    bits: int
    photometric: str
    #: Keyword -> value of the elements that belong to these values.
    elements: dict[str, Any]

    @property
    def signed(self) -> bool:
        """Whether values have a sign."""
        return self.values.dtype.kind == "i"

    @property
    def samples(self) -> int:
        """Samples per pixel."""
        return 3 if self.values.ndim == 3 else 1


Encode = Callable[[Stored], bytes]

#: Number of segments and fifteen offsets (PS3.5 G.5).
RLE_HEADER = Struct("<16I")


def _little(stored: Stored) -> bytes:
    raw: bytes = np.ascontiguousarray(stored.values).tobytes()
    return raw + b"\0" * (len(raw) % 2)


def _big(stored: Stored) -> bytes:
    values = stored.values
    if values.dtype.itemsize == 1:
        raw = _little(stored)
        # 8-bit values are written as OW: pairs of bytes are swapped (PS3.5 D.3).
        return np.frombuffer(raw, np.uint16).byteswap().tobytes()
    return np.ascontiguousarray(values).byteswap().tobytes()


def _rle(stored: Stored) -> bytes:
    """PS3.5 G: a segment for each byte of each sample, the most significant first."""
    values = stored.values[..., None] if stored.samples == 1 else stored.values
    octets = np.ascontiguousarray(values.astype(values.dtype.newbyteorder(">"))).view(np.uint8)
    segments, offsets, offset = [], [], RLE_HEADER.size
    for plane in np.moveaxis(octets, 2, 0):
        # Runs do not cross rows.
        segment = bytes(imagecodecs.packbits_encode(np.ascontiguousarray(plane), axis=-1))
        offsets.append(offset)
        segments.append(segment + b"\0" * (len(segment) % 2))
        offset += len(segments[-1])
    header = RLE_HEADER.pack(len(segments), *offsets, *bytes(15 - len(segments)))
    return encapsulate([header + b"".join(segments)])


def _jpeg(stored: Stored) -> bytes:
    stream = io.BytesIO()
    # 4:2:2 is what YBR_FULL_422 promises (PS3.3 C.7.6.3.1.2).
    Image.fromarray(stored.values).save(stream, "JPEG", quality=92, subsampling="4:2:2")
    return encapsulate([stream.getvalue()])


def _jpeg_ls(stored: Stored) -> bytes:
    values = np.ascontiguousarray(stored.values)
    stream = bytes(imagecodecs.jpegls_encode(values.view(f"u{values.itemsize}")))
    # DICOM has no use for the SPIFF header between the first marker and the frame's.
    return encapsulate([stream[:2] + stream[stream.index(b"\xff\xf7") :]])


def _jpeg_2000(stored: Stored) -> bytes:
    values = np.ascontiguousarray(stored.values)
    stream = imagecodecs.jpeg2k_encode(
        values, codecformat="J2K", bitspersample=stored.bits, reversible=True, numthreads=1
    )
    return encapsulate([bytes(stream)])


#: Transfer syntax UID -> how pixel data is written in it.
ENCODERS: dict[str, Encode] = {
    ImplicitVRLittleEndian: _little,
    ExplicitVRLittleEndian: _little,
    DeflatedExplicitVRLittleEndian: _little,
    ExplicitVRBigEndian: _big,
    RLELossless: _rle,
    JPEGBaseline8Bit: _jpeg,
    JPEGLSLossless: _jpeg_ls,
    JPEG2000Lossless: _jpeg_2000,
}

#: Modality -> transfer syntaxes that its series take in turn.
SYNTAXES: dict[str, tuple[str, ...]] = {
    "CT": (
        ExplicitVRLittleEndian,
        JPEGLSLossless,
        ImplicitVRLittleEndian,
        JPEG2000Lossless,
        RLELossless,
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
    ),
    "MR": (
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        RLELossless,
        JPEG2000Lossless,
        ExplicitVRBigEndian,
        JPEGLSLossless,
        DeflatedExplicitVRLittleEndian,
    ),
    "PT": (ExplicitVRLittleEndian, JPEG2000Lossless, ImplicitVRLittleEndian, RLELossless),
    "US": (JPEGBaseline8Bit, ExplicitVRLittleEndian, RLELossless, DeflatedExplicitVRLittleEndian),
    "MG": (JPEG2000Lossless, JPEGLSLossless, ExplicitVRLittleEndian, ImplicitVRLittleEndian),
}

#: What a signed CT holds outside the scanned circle.
CT_PADDING = -2000


def store_ct(values: NDArray[np.float64], turn: int, window: tuple[int, int] | None) -> Stored:
    """Store Hounsfield units: in turn as 12 bit with an offset, or signed with padding."""
    elements: dict[str, Any] = {"RescaleSlope": "1", "RescaleType": "HU"}
    if window is not None:
        elements |= {"WindowCenter": str(window[0]), "WindowWidth": str(window[1])}
    units = np.clip(np.rint(values), -1024, 3071)
    if turn % 2 == 0:
        elements["RescaleIntercept"] = "-1024"
        return Stored((units + 1024).astype(np.uint16), 12, "MONOCHROME2", elements)
    rows, columns = units.shape
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    units[x * x + y * y > 1.15] = CT_PADDING
    elements |= {"RescaleIntercept": "0", "PixelPaddingValue": CT_PADDING}
    return Stored(units.astype(np.int16), 16, "MONOCHROME2", elements)


def store_mr(values: NDArray[np.float64], turn: int, window: tuple[int, int] | None) -> Stored:
    """Store signal as 12 bit, or signed 16 bit; every other series without a window."""
    elements: dict[str, Any] = {}
    if window is not None:
        elements |= {"WindowCenter": str(window[0]), "WindowWidth": str(window[1])}
    kind, bits = ((np.uint16, 12), (np.int16, 16))[turn % 2]
    return Stored(np.clip(np.rint(values), 0, 4095).astype(kind), bits, "MONOCHROME2", elements)


def store_pt(values: NDArray[np.float64], turn: int, window: tuple[int, int] | None) -> Stored:
    """Store activity in Bq/ml with a slope that uses the whole range, as PET does (C.8.9.1)."""
    becquerel = values * 2000
    slope = round(max(1e-3, float(becquerel.max()) / 32767), 6)
    elements: dict[str, Any] = {"RescaleSlope": f"{slope:g}", "RescaleIntercept": "0"}
    if window is not None and turn % 2:
        elements |= {"WindowCenter": str(window[0]), "WindowWidth": str(window[1])}
    stored = np.clip(np.rint(becquerel / slope), 0, 32767).astype(np.int16)
    return Stored(stored, 16, "MONOCHROME2", elements)


def store_us(values: NDArray[np.float64], turn: int, window: tuple[int, int] | None) -> Stored:
    """Store brightness as 8 bit, in turn in colour (with a colour bar) and grey."""
    del window  # Ultrasound is stored ready to show.
    grey = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    if turn % 3 == 1:
        return Stored(grey, 8, "MONOCHROME2", {})
    tint = np.array([1.0, 0.96, 0.86])
    colour = np.rint(grey[..., None] * tint).astype(np.uint8)
    rows, columns = grey.shape
    top, bottom, left = rows // 10, rows // 3, columns - max(4, columns // 40)
    ramp = np.linspace(255, 0, bottom - top).astype(np.uint8)[:, None]
    colour[top:bottom, left:] = np.stack([ramp, ramp // 2, 255 - ramp], axis=2)
    return Stored(colour, 8, "RGB", {"PlanarConfiguration": 0})


def store_mg(values: NDArray[np.float64], turn: int, window: tuple[int, int] | None) -> Stored:
    """Store opacity as 12 bit, in turn with high values white and black."""
    del window
    stored = np.clip(np.rint(values * 3600 + 200), 0, 4095).astype(np.uint16)
    elements: dict[str, Any] = {"PresentationLUTShape": "IDENTITY"}
    if turn % 2:
        stored, elements = 4095 - stored, {"PresentationLUTShape": "INVERSE"}
    if turn % 3:
        elements |= {"WindowCenter": "2047.5", "WindowWidth": "4096", "VOILUTFunction": "LINEAR"}
    return Stored(stored, 12, "MONOCHROME1" if turn % 2 else "MONOCHROME2", elements)
