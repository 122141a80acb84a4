"""The one door: bytes of an image file in, one frame ready for the model out.

bytes -> bounded parse -> transfer syntax -> modality LUT -> VOI LUT or window -> inversion or
luminance -> crop padding -> letterbox -> uint8. Training, gateway and jobs all come through here.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dafh.errors import InvalidInput, Reason
from dafh.imaging.codecs import NATIVE, codec_for, decode_frame
from dafh.imaging.colour import colour_to_grey
from dafh.imaging.elements import Tag
from dafh.imaging.fragments import frame_fragments
from dafh.imaging.image import Image, Metadata, PatientKeyer
from dafh.imaging.limits import DEFAULT_POLICY, Limits, Policy
from dafh.imaging.metadata import public_metadata
from dafh.imaging.notes import Notes, Scopes
from dafh.imaging.pixels import (
    Photometric,
    PixelFormat,
    Stored,
    frame_number,
    has_whole_chroma,
    native_frame,
    pixel_format,
)
from dafh.imaging.raster import read_jpeg_file, read_png
from dafh.imaging.reader import Instance, PixelElement, read_instance
from dafh.imaging.refusal import memory_exceeded, tag_name, undecodable
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
    notes: Notes


class _File(Protocol):
    """A file that was parsed."""

    @property
    def frames(self) -> int: ...

    def number(self, frame: int) -> int:
        """Return the frame number, from 1, that was asked for by number or `REPRESENTATIVE`."""

    def picture(self, number: int) -> _Picture:
        """Decode one frame."""


def decode(
    data: bytes,
    *,
    side: int,
    keyer: PatientKeyer | None = None,
    frame: int = 1,
    window: int | str = 1,
    content_hash: bool = True,
    policy: Policy = DEFAULT_POLICY,
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
        Frame number from 1, or `REPRESENTATIVE`; for every frame there is `decode_all`. No other
        frame is decoded.
    window
        Which of the file's windows to show a monochrome image through: its number from 1, or its
        name, Window Center & Width Explanation (0028,1055).
    content_hash
        Whether to make `Image.content_sha256`, which an archive needs and a query does not: it
        takes a quarter of the time of an uncompressed CT.
    policy
        What is refused; its limits bound the work.

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
    with _memory(policy):
        file = _open(data, keyer, window, policy)
        return _image(file.picture(file.number(frame)), side, content_hash=content_hash)


def decode_all(
    data: bytes,
    *,
    side: int,
    keyer: PatientKeyer | None = None,
    window: int | str = 1,
    content_hash: bool = True,
    policy: Policy = DEFAULT_POLICY,
) -> Iterator[Image]:
    """Turn every frame of a file into model input, in order.

    The file is parsed once, when the first frame is asked for; one frame is in memory at a time.

    Parameters
    ----------
    data, side, keyer, window, content_hash, policy
        As for `decode`.

    Yields
    ------
    Image
        As `decode` gives for the same frame number.

    Raises
    ------
    InvalidInput
        As `decode`; a damaged frame ends the iteration, and those before it have been yielded.
    """
    with _memory(policy):
        file = _open(data, keyer, window, policy)
    for number in range(1, file.frames + 1):
        with _memory(policy):
            image = _image(file.picture(number), side, content_hash=content_hash)
        yield image


def render(
    data: bytes, *, frame: int = 1, window: int | str = 1, policy: Policy = DEFAULT_POLICY
) -> tuple[NDArray[np.uint8], float]:
    """Return a frame as a viewer would show it, before crop and letterbox.

    Parameters
    ----------
    data, frame, window, policy
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
    with _memory(policy):
        file = _open(data, None, window, policy)
        picture = file.picture(file.number(frame))
        return picture.grey, picture.pixel_aspect


@contextmanager
def _memory(policy: Policy) -> Iterator[None]:
    """Say whose fault it is that memory ran out; only a limited process sees it happen."""
    try:
        yield
    except MemoryError:
        raise memory_exceeded(policy.limits) from None


def _open(data: bytes, keyer: PatientKeyer | None, window: int | str, policy: Policy) -> _File:
    kind = sniff(data, policy)
    if kind is Kind.DICOM:
        return _open_dicom(data, keyer, window, policy)
    return _open_raster(_RASTERS[kind], data, policy)


def _image(picture: _Picture, side: int, *, content_hash: bool) -> Image:
    """Bring a frame into the model's geometry."""
    notes = picture.notes
    cropped = crop_padding(picture.grey)
    if cropped.shape != picture.grey.shape:
        notes.applied.append("crop {} x {}".format(*cropped.shape))
    if picture.grey.min() == picture.grey.max():
        notes.warnings.append("the image is uniform")
    pixels = letterbox(cropped, side, picture.pixel_aspect)
    return Image(
        pixels=pixels[None],
        frame=picture.frame,
        content_sha256=picture.stored.sha256() if content_hash else "",
        metadata=picture.metadata,
        applied=tuple(notes.applied),
        warnings=tuple(notes.warnings),
    )


@dataclass(frozen=True, slots=True)
class _Dicom:
    """A DICOM instance with pixels."""

    instance: Instance
    form: PixelFormat
    #: Frame number -> its values.
    stored: Callable[[int], Stored]
    metadata: Metadata
    #: Of the instance: every frame's begin with them.
    notes: Notes
    window: int | str

    @property
    def frames(self) -> int:
        return self.form.frames

    def number(self, frame: int) -> int:
        return frame_number(self.instance.data_set, self.form.frames, frame, REPRESENTATIVE)

    def picture(self, number: int) -> _Picture:
        data_set, metadata = self.instance.data_set, self.metadata
        notes = Notes([*self.notes.applied], [*self.notes.warnings])
        stored = self.stored(number)
        if stored.values.dtype.kind == "i" and not self.form.signed:
            notes.warnings.append("(0028,0103) ignored: the stream says that values are signed")
        scopes = Scopes(data_set, number)
        if stored.photometric in (Photometric.MONOCHROME1, Photometric.MONOCHROME2):
            grey = monochrome_to_grey(
                stored,
                scopes,
                notes,
                modality=metadata.modality,
                body_part=metadata.body_part,
                window=self.window,
            )
        else:
            grey = colour_to_grey(stored, data_set, notes)
        return _Picture(grey, _pixel_aspect(scopes, notes), number, stored, metadata, notes)


def _open_dicom(
    data: bytes, keyer: PatientKeyer | None, window: int | str, policy: Policy
) -> _Dicom:
    instance = read_instance(data, policy.limits)
    if instance.pixels is None:
        raise InvalidInput(
            Reason.NO_PIXELS,
            "The DICOM object has no pixel data (7FE0,0010).",
            remedy="Send an image; reports, plans and directories cannot be searched with.",
            subject=tag_name(Tag.PIXEL_DATA),
        )
    data_set, notes = instance.data_set, Notes()
    form = pixel_format(data_set, instance.pixels, policy.limits)
    if has_whole_chroma(instance.pixels, form):
        notes.warnings.append(
            "(0028,0004) taken for YBR_FULL: so many bytes cannot be YBR_FULL_422"
        )
        form = replace(form, photometric=Photometric.YBR_FULL)
    metadata = public_metadata(
        data_set,
        form,
        instance.transfer_syntax,
        keyer,
        notes,
        refuse_burned_in=policy.refuse_burned_in,
    )
    stored = _stored_values(instance, instance.pixels, form, policy.limits)
    return _Dicom(instance, form, stored, metadata, notes, window)


def _stored_values(
    instance: Instance, pixels: PixelElement, form: PixelFormat, limits: Limits
) -> Callable[[int], Stored]:
    """Return what undoes the transfer syntax for a frame, by its number."""
    syntax = instance.transfer_syntax
    if not pixels.encapsulated and syntax not in NATIVE:
        # Native values under a compressed syntax: some writers forget to correct the label.
        codec_for(syntax)
    if not pixels.encapsulated:
        return partial(native_frame, pixels, form)
    if syntax in NATIVE:
        raise undecodable("it lies in fragments, as (0002,0010) says that it does not")
    codec = codec_for(syntax)
    frames = frame_fragments(pixels, instance, form.frames, one_each=codec.one_each, limits=limits)
    return lambda number: decode_frame(codec, b"".join(frames[number - 1]), form, limits)


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


@dataclass(frozen=True, slots=True)
class _Raster:
    """A file of a format that has pixels only."""

    grey: NDArray[np.uint8]
    stored: Stored

    @property
    def frames(self) -> int:
        return 1

    def number(self, frame: int) -> int:
        if frame not in (1, REPRESENTATIVE):
            raise InvalidInput(
                Reason.FRAME_OUT_OF_RANGE,
                f"Frame {frame} does not exist: the file has 1.",
                remedy="Ask for frame 1.",
                subject="frame",
            )
        return 1

    def picture(self, number: int) -> _Picture:
        notes = Notes()
        if self.stored.photometric is not Photometric.MONOCHROME2:
            notes.applied.append("luminance")
        # PS3.5 B.2: a UID from a UUID, here one that names the content.
        content = uuid.uuid5(uuid.NAMESPACE_OID, self.stored.sha256())
        rows, columns = self.grey.shape
        metadata = Metadata(f"2.25.{content.int}", "", "", rows=rows, columns=columns)
        return _Picture(self.grey, 1.0, number, self.stored, metadata, notes)


def _open_raster(
    read: Callable[[bytes, Limits], tuple[Stored, NDArray[np.uint8]]], data: bytes, policy: Policy
) -> _Raster:
    stored, grey = read(data, policy.limits)
    return _Raster(grey, stored)


_RASTERS = {Kind.PNG: read_png, Kind.JPEG: read_jpeg_file}
