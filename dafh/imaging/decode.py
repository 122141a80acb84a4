"""The one door: bytes of an image file in, one frame ready for the model out.

bytes -> bounded parse -> transfer syntax -> modality LUT -> VOI LUT or window -> inversion or
luminance -> crop padding -> letterbox -> uint8. Training, gateway and jobs all come through here.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dafh.errors import InvalidInput, Reason
from dafh.imaging.codecs import NATIVE, codec_for, decode_frame
from dafh.imaging.colour import colour_to_grey
from dafh.imaging.elements import Tag
from dafh.imaging.fragments import encapsulated_frame
from dafh.imaging.image import Image, Metadata, PatientKeyer
from dafh.imaging.limits import DEFAULT_LIMITS, Limits
from dafh.imaging.metadata import public_metadata
from dafh.imaging.notes import Notes, Scopes
from dafh.imaging.pixels import (
    Photometric,
    PixelFormat,
    Stored,
    frame_number,
    native_frame,
    pixel_format,
)
from dafh.imaging.raster import read_jpeg_file, read_png
from dafh.imaging.reader import Instance, PixelElement, read_instance
from dafh.imaging.refusal import tag_name
from dafh.imaging.resize import crop_padding, letterbox
from dafh.imaging.sniff import Kind, sniff
from dafh.imaging.values import monochrome_to_grey

#: Instead of a frame number: Representative Frame Number (0028,6010), else the middle frame.
REPRESENTATIVE = 0

#: Height over width of a pixel beyond which, either way, the spacing is taken for a mistake.
LARGEST_ASPECT = 16.0


@dataclass(frozen=True, slots=True)
class _Picture:
    """A frame as a viewer would show it, before the model's geometry."""

    grey: NDArray[np.uint8]
    pixel_aspect: float
    frame: int
    stored: Stored
    metadata: Metadata


def decode(
    data: bytes,
    *,
    side: int,
    keyer: PatientKeyer | None = None,
    frame: int = 1,
    limits: Limits = DEFAULT_LIMITS,
) -> Image:
    """Turn an image file into model input and public metadata.

    Parameters
    ----------
    data
        A DICOM file (PS3.10, or a bare data set), a PNG or a JPEG file.
    side
        Side S of the model input in pixels.
    keyer
        Makes the patient key; without it the key is "".
    frame
        Frame number from 1, or `REPRESENTATIVE`. Only this frame is decoded.
    limits
        Bounds on the work.

    Returns
    -------
    Image
        The same for the same bytes, always.

    Raises
    ------
    InvalidInput
        With any reason of the group "The image" of `Reason`; the message names the element, the
        limit and the value, and nothing of the patient.
    """
    notes = Notes()
    picture = _READERS[sniff(data, limits)](data, frame, keyer, limits, notes)
    cropped = crop_padding(picture.grey)
    if cropped.shape != picture.grey.shape:
        notes.applied.append("crop {} x {}".format(*cropped.shape))
    if picture.grey.min() == picture.grey.max():
        notes.warnings.append("the image is uniform")
    pixels = letterbox(cropped, side, picture.pixel_aspect)
    return Image(
        pixels=pixels[None],
        frame=picture.frame,
        content_sha256=picture.stored.sha256(),
        metadata=picture.metadata,
        applied=tuple(notes.applied),
        warnings=tuple(notes.warnings),
    )


def render(
    data: bytes, *, frame: int = 1, limits: Limits = DEFAULT_LIMITS
) -> tuple[NDArray[np.uint8], float]:
    """Return a frame as a viewer would show it, before crop and letterbox.

    Parameters
    ----------
    data, frame, limits
        As for `decode`.

    Returns
    -------
    tuple[NDArray[np.uint8], float]
        Grey levels ``[rows, columns]``, and height over width of a pixel.

    Raises
    ------
    InvalidInput
        As `decode`.
    """
    picture = _READERS[sniff(data, limits)](data, frame, None, limits, Notes())
    return picture.grey, picture.pixel_aspect


def _read_dicom(
    data: bytes, frame: int, keyer: PatientKeyer | None, limits: Limits, notes: Notes
) -> _Picture:
    instance = read_instance(data, limits)
    if instance.pixels is None:
        raise InvalidInput(
            Reason.NO_PIXELS,
            "The DICOM object has no pixel data (7FE0,0010).",
            remedy="Send an image; reports, plans and directories cannot be searched with.",
            subject=tag_name(Tag.PIXEL_DATA),
        )
    data_set = instance.data_set
    form = pixel_format(data_set, instance.pixels, limits)
    metadata = public_metadata(data_set, form, instance.transfer_syntax, keyer, notes)
    frame = frame_number(data_set, form.frames, frame, REPRESENTATIVE)
    stored = _stored_values(instance, instance.pixels, form, frame, limits)
    scopes = Scopes(data_set, frame)
    if stored.photometric in (Photometric.MONOCHROME1, Photometric.MONOCHROME2):
        grey = monochrome_to_grey(
            stored, scopes, notes, modality=metadata.modality, body_part=metadata.body_part
        )
    else:
        grey = colour_to_grey(stored, data_set, notes)
    return _Picture(grey, _pixel_aspect(scopes, notes), frame, stored, metadata)


def _stored_values(
    instance: Instance, pixels: PixelElement, form: PixelFormat, frame: int, limits: Limits
) -> Stored:
    """Undo the transfer syntax for one frame."""
    syntax = instance.transfer_syntax
    if not pixels.encapsulated and syntax not in NATIVE:
        # Native values under a compressed syntax: some writers forget to correct the label.
        codec_for(syntax)
    if not pixels.encapsulated:
        return native_frame(pixels, form, frame)
    codec = codec_for(syntax)
    stream = encapsulated_frame(
        pixels,
        instance.data_set,
        form.frames,
        frame,
        one_each=codec.one_each,
        limits=limits,
    )
    return decode_frame(codec, stream, form, limits)


def _pixel_aspect(scopes: Scopes, notes: Notes) -> float:
    """Return height over width of a pixel (PS3.3 C.7.6.3.1.7, 10.7.1.3: rows come first)."""
    for tag in (
        Tag.PIXEL_SPACING,
        Tag.IMAGER_PIXEL_SPACING,
        Tag.NOMINAL_SCANNED_PIXEL_SPACING,
        Tag.PIXEL_ASPECT_RATIO,
    ):
        pair = notes.numbers(scopes.having(tag), tag)
        if len(pair) < 2:
            continue
        if min(pair[:2]) > 0 and 1 / LARGEST_ASPECT <= pair[0] / pair[1] <= LARGEST_ASPECT:
            return pair[0] / pair[1]
        notes.warnings.append(f"{tag_name(tag)} ignored: no shape that a pixel has")
    return 1.0


def _read_raster(
    read: Callable[[bytes, Limits], tuple[Stored, NDArray[np.uint8]]],
) -> Callable[[bytes, int, PatientKeyer | None, Limits, Notes], _Picture]:
    """Return a reader of a file format that has pixels only."""

    def read_picture(
        data: bytes, frame: int, _keyer: PatientKeyer | None, limits: Limits, notes: Notes
    ) -> _Picture:
        stored, grey = read(data, limits)
        rows, columns = grey.shape
        if frame not in (1, REPRESENTATIVE):
            raise InvalidInput(
                Reason.FRAME_OUT_OF_RANGE,
                f"Frame {frame} does not exist: the file has 1.",
                remedy="Ask for frame 1.",
                subject="frame",
            )
        if stored.photometric is not Photometric.MONOCHROME2:
            notes.applied.append("luminance")
        # PS3.5 B.2: a UID from a UUID, here one that names the content.
        content = uuid.uuid5(uuid.NAMESPACE_OID, stored.sha256())
        metadata = Metadata(f"2.25.{content.int}", "", "", rows=rows, columns=columns)
        return _Picture(grey, 1.0, 1, stored, metadata)

    return read_picture


_READERS = {
    Kind.DICOM: _read_dicom,
    Kind.PNG: _read_raster(read_png),
    Kind.JPEG: _read_raster(read_jpeg_file),
}
