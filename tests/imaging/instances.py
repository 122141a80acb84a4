"""Small DICOM files, written element by element."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

#: Seed of the phantoms that tests share.
SEED = 2

MakeInstance = Callable[..., bytes]


def write_instance(
    pixels: NDArray[np.number] | None = None,
    *,
    syntax: str = ExplicitVRLittleEndian,
    without: tuple[str, ...] = (),
    **elements: object,
) -> bytes:
    """Return a small valid DICOM file; `elements` by keyword come on top."""
    values = np.arange(256, dtype=np.uint16).reshape(16, 16) if pixels is None else pixels
    data_set = Dataset()
    data_set.SOPClassUID = SecondaryCaptureImageStorage
    data_set.SOPInstanceUID = "2.25.1"
    data_set.StudyInstanceUID = "2.25.2"
    data_set.SeriesInstanceUID = "2.25.3"
    data_set.Modality = "OT"
    data_set.PatientID = "TEST-1"
    data_set.SamplesPerPixel = 1
    data_set.PhotometricInterpretation = "MONOCHROME2"
    data_set.Rows, data_set.Columns = values.shape[:2]
    data_set.BitsAllocated = 8 * values.dtype.itemsize
    data_set.BitsStored = data_set.BitsAllocated
    data_set.HighBit = data_set.BitsStored - 1
    data_set.PixelRepresentation = int(values.dtype.kind == "i")
    data_set.PixelData = values.tobytes()
    data_set["PixelData"].VR = "OW"
    for keyword, value in elements.items():
        setattr(data_set, keyword, value)
    for keyword in without:
        delattr(data_set, keyword)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data_set.SOPClassUID
    meta.MediaStorageSOPInstanceUID = UID("2.25.1")
    meta.TransferSyntaxUID = UID(syntax)
    data_set.file_meta = meta
    stream = io.BytesIO()
    dcmwrite(stream, data_set, enforce_file_format=True)
    return stream.getvalue()


def reread(data: bytes) -> Dataset:
    """Return what pydicom reads."""
    return dcmread(io.BytesIO(data))
