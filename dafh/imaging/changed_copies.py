"""Changed copies of an instance, as another viewer, scanner or archive might have made them.

For demonstrations and tests: a changed copy should still find its source.
"""

from __future__ import annotations

import io
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from dafh.imaging.decode import REPRESENTATIVE, render

#: Who the copy is of: taken over from the source, nothing else is.
KEPT = (
    "PatientID",
    "IssuerOfPatientID",
    "StudyInstanceUID",
    "Modality",
    "BodyPartExamined",
)
ANGLE = 10.0  # degrees
SCALE = 0.7
QUALITY = 50


class Change(StrEnum):
    """What was done to the copy."""

    #: A window a fifth wider, its centre 5 % higher.
    REWINDOWED = "re-windowed (a fifth wider)"
    #: By 10 degrees about the centre; the corners are lost, what comes in is black.
    ROTATED = "rotated 10°"
    #: To 70 % of the size.
    RESCALED = "rescaled"
    #: JPEG baseline at quality 50.
    JPEG = "JPEG quality 50"


def changed_copy(data: bytes, change: Change) -> bytes:
    """Return a changed copy of a DICOM image's representative frame, as a DICOM file.

    Parameters
    ----------
    data
        A DICOM file that `decode` takes.
    change
        What to do.

    Returns
    -------
    bytes
        A Secondary Capture of the same patient and study with a SOP Instance UID of its own.
    """
    grey, aspect = render(data, frame=REPRESENTATIVE)
    source = dcmread(io.BytesIO(data), stop_before_pixels=True, specific_tags=list(KEPT))
    copy = Dataset()
    for keyword in KEPT:
        if keyword in source:
            copy[keyword] = source[keyword]
    grey = _PIXELS.get(change, _unchanged)(grey)
    copy.SOPClassUID = SecondaryCaptureImageStorage
    copy.SOPInstanceUID = generate_uid(entropy_srcs=[str(hash(data)), change])
    copy.Rows, copy.Columns = grey.shape
    copy.PixelSpacing = [aspect, 1.0]
    copy.SamplesPerPixel = 1
    copy.PhotometricInterpretation = "MONOCHROME2"
    copy.BitsAllocated, copy.BitsStored, copy.HighBit = 8, 8, 7
    copy.PixelRepresentation = 0
    # Greys as they are: without this the gateway would choose a window for the modality.
    copy.WindowCenter, copy.WindowWidth = (
        (141.0, 306.0) if change is Change.REWINDOWED else (128, 256)
    )
    return _write(copy, grey, change)


def _write(copy: Dataset, grey: NDArray[np.uint8], change: Change) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = copy.SOPClassUID
    meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    pixels = grey.tobytes()
    copy.PixelData = pixels + b"\0" * (len(pixels) % 2)
    if change is Change.JPEG:
        meta.TransferSyntaxUID = JPEGBaseline8Bit
        encoded = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
        copy.PixelData = encapsulate([encoded.tobytes()])
    copy["PixelData"].VR = "OB"
    copy.file_meta = meta
    out = io.BytesIO()
    copy.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _unchanged(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return grey


def _rotated(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows, columns = grey.shape
    matrix = cv2.getRotationMatrix2D((columns / 2, rows / 2), ANGLE, 1.0)
    return np.asarray(cv2.warpAffine(grey, matrix, (columns, rows)), np.uint8)


def _rescaled(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scaled = cv2.resize(grey, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_AREA)
    return np.asarray(scaled, np.uint8)


_PIXELS = {Change.ROTATED: _rotated, Change.RESCALED: _rescaled}
