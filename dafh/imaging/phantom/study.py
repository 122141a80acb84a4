"""Phantom patients, studies and series, and the DICOM instances that carry them."""

from __future__ import annotations

import hashlib
import io
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, JPEGBaseline8Bit

from dafh.imaging.phantom.canvas import Canvas, Geometry
from dafh.imaging.phantom.kinds import KINDS, Kind
from dafh.imaging.phantom.storage import ENCODERS, SYNTAXES, Stored

NOT_A_PATIENT = "Synthetic phantom made by DAFH; not patient data."
IMPLEMENTATION = "dafh phantom implementation"

#: Series of one study, and studies of one patient.
SERIES_PER_STUDY = 2
SERIES_PER_PATIENT = 3
#: Series from which on instances are many rather than fine, and by how many times the rasters of
#: their series are coarser, in turn: a hundred thousand fit a laptop.
CROWD = 600
COARSER = (2, 3, 2, 4)


@dataclass(frozen=True, slots=True)
class Phantom:
    """One synthetic instance."""

    #: Relative, without folders.
    file_name: str
    #: A DICOM file.
    data: bytes = field(repr=False)
    #: What it shows: "phantom ct chest".
    label: str
    modality: str
    #: Number of the made-up patient, from 1.
    patient: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance stands in the made-up world."""

    seed: int
    #: Counts series over all patients, from 0.
    series: int
    #: Counts the series of this kind, from 0: takes turns with geometries, windows and syntaxes.
    turn: int
    #: From 0, of `count`.
    number: int
    count: int
    #: Counts instances over all patients, from 1.
    instance: int

    @property
    def patient(self) -> int:
        """Number of the patient, from 1."""
        return self.series // SERIES_PER_PATIENT + 1

    @property
    def study(self) -> int:
        """Number of the study of the patient, from 1."""
        return self.series % SERIES_PER_PATIENT // SERIES_PER_STUDY + 1

    def uid(self, level: str, *numbers: int) -> str:
        """Return a UID that follows from seed, level and numbers (PS3.5 B.2)."""
        return _uid(f"{self.seed}/{level}/" + "/".join(str(number) for number in numbers))


def phantoms(count: int, seed: int = 1) -> Iterator[Phantom]:
    """Yield phantom instances: several patients with several studies, series and slices.

    Parameters
    ----------
    count
        How many instances. The first of a longer run are those of a shorter one.
    seed
        The same seed gives the same bytes, on every run.
    """
    return map(drawn, places(count, seed))


def places(count: int, seed: int = 1) -> Iterator[Place]:
    """Yield where each of the instances stands; `drawn` makes it, in any process."""
    made = series = 0
    while made < count:
        kind, turn = KINDS[series % len(KINDS)], series // len(KINDS)
        rng = np.random.default_rng([seed, series])
        slices = int(rng.integers(1, kind.slices + 1))
        for number in range(min(slices, count - made)):
            made += 1
            yield Place(seed, series, turn, number, slices, made)
        series += 1


def drawn(place: Place) -> Phantom:
    """Return the instance at a place."""
    kind = KINDS[place.series % len(KINDS)]
    geometry = kind.geometries[place.turn % len(kind.geometries)]
    if place.series >= CROWD:
        geometry = geometry.coarser(COARSER[place.turn % len(COARSER)])
    window = kind.windows[place.turn % len(kind.windows)]
    canvas = Canvas(
        geometry,
        shape=np.random.default_rng([place.seed, place.series, 1]),
        grain=np.random.default_rng([place.seed, place.series, 2, place.number]),
        background=kind.background,
    )
    kind.draw(canvas, _height(place, canvas))
    stored = kind.store(canvas.values, place.turn, window)
    syntaxes = SYNTAXES[kind.modality]
    # The number of kinds shares no factor with most table lengths, so all pairs come up.
    syntax = syntaxes[place.series % len(syntaxes)]
    data_set = _data_set(kind, place, geometry, stored, syntax)
    return Phantom(
        file_name=f"phantom-{place.instance:04}-{kind.modality.lower()}.dcm",
        data=_file(data_set, syntax),
        label=kind.label,
        modality=kind.modality,
        patient=place.patient,
    )


def _height(place: Place, canvas: Canvas) -> float:
    """Return where a slice lies, -1 to 1: slices of a series are far apart."""
    if place.count == 1:
        return canvas.near(0, 0.8)
    even = 2 * place.number / (place.count - 1) - 1
    return float(np.clip(0.85 * even + canvas.grain.uniform(-0.15, 0.15), -1, 1))


def _data_set(kind: Kind, place: Place, geometry: Geometry, stored: Stored, syntax: str) -> Dataset:
    data_set = Dataset()
    rng = np.random.default_rng([place.seed, place.patient, place.study])
    numbers = (place.patient, place.study, place.series, place.number)
    # SOP Common (PS3.3 C.12.1), Patient (C.7.1.1), General Study (C.7.2.1).
    data_set.SpecificCharacterSet = "ISO_IR 192"
    data_set.ImageType = ["ORIGINAL", "PRIMARY"]
    data_set.SOPClassUID = kind.sop_class
    data_set.SOPInstanceUID = place.uid("instance", *numbers)
    data_set.StudyDate = f"{int(rng.integers(2012, 2025))}0101"
    data_set.StudyTime = "000000"
    data_set.AccessionNumber = ""
    data_set.ReferringPhysicianName = ""
    data_set.PatientName = f"PHANTOM^{place.patient:04}"
    data_set.PatientID = f"PHANTOM-{place.patient:04}"
    data_set.IssuerOfPatientID = "DAFH PHANTOM"
    data_set.PatientBirthDate = ""
    data_set.PatientSex = "O"
    data_set.PatientIdentityRemoved = "YES"
    data_set.DeidentificationMethod = "Never a patient: drawn by a program"
    data_set.StudyInstanceUID = place.uid("study", place.patient, place.study)
    data_set.StudyID = str(place.study)
    # General Series (C.7.3.1), Equipment (C.7.5.1), Frame of Reference (C.7.4.1).
    data_set.Modality = kind.modality
    data_set.Manufacturer = "DAFH"
    data_set.ManufacturerModelName = "DAFH phantom"
    data_set.BodyPartExamined = kind.body_part
    data_set.SeriesInstanceUID = place.uid("series", place.patient, place.series)
    data_set.SeriesNumber = str(place.series + 1)
    data_set.SeriesDescription = kind.label
    data_set.FrameOfReferenceUID = place.uid("frame", place.patient, place.study)
    data_set.PositionReferenceIndicator = ""
    data_set.InstanceNumber = str(place.number + 1)
    data_set.ImageComments = NOT_A_PATIENT
    data_set.BurnedInAnnotation = "NO"
    _add_modality(data_set, kind, place, geometry)
    _add_pixels(data_set, stored, geometry, syntax)
    return data_set


def _add_modality(data_set: Dataset, kind: Kind, place: Place, geometry: Geometry) -> None:
    """Add the elements of the modality's own modules (PS3.3 C.8)."""
    spacing = [f"{geometry.row_spacing:g}", f"{geometry.column_spacing:g}"]
    if kind.modality in ("CT", "MR", "PT"):
        data_set.PixelSpacing = spacing
        data_set.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
        data_set.ImagePositionPatient = ["0", "0", str(40 * place.number)]
        data_set.SliceThickness = "5"
        data_set.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data_set.AcquisitionNumber = "1"
    if kind.modality == "CT":
        data_set.KVP = "120"
    elif kind.modality == "MR":
        data_set.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
        data_set.ScanningSequence = "SE"
        data_set.SequenceVariant = "NONE"
        data_set.ScanOptions = ""
        data_set.MRAcquisitionType = "2D"
        data_set.RepetitionTime = "500"
        data_set.EchoTime = "15"
        data_set.EchoTrainLength = "1"
    elif kind.modality == "PT":
        data_set.Units = "BQML"
        data_set.CountsSource = "EMISSION"
        data_set.DecayCorrection = "NONE"
        data_set.CorrectedImage = ""
        data_set.SeriesType = ["STATIC", "IMAGE"]
        data_set.ImageIndex = place.number + 1
    elif kind.modality == "MG":
        data_set.ImagerPixelSpacing = spacing
        data_set.PresentationIntentType = "FOR PRESENTATION"
        data_set.PixelIntensityRelationship = "LOG"
        data_set.PixelIntensityRelationshipSign = 1
        data_set.RescaleIntercept, data_set.RescaleSlope = "0", "1"
        data_set.RescaleType = "US"
        data_set.ImageLaterality = "L"
        data_set.ViewPosition = "MLO" if place.number else "CC"
        data_set.PatientOrientation = ["A", "F"]
        data_set.LossyImageCompression = "00"
    elif kind.modality == "US":
        data_set.PixelAspectRatio = ["1", "1"]


def _add_pixels(data_set: Dataset, stored: Stored, geometry: Geometry, syntax: str) -> None:
    """Add the Image Pixel module (PS3.3 C.7.6.3) and the pixels."""
    data_set.SamplesPerPixel = stored.samples
    data_set.PhotometricInterpretation = stored.photometric
    if syntax == JPEGBaseline8Bit:
        data_set.LossyImageCompression = "01"
        data_set.LossyImageCompressionMethod = "ISO_10918_1"
        data_set.LossyImageCompressionRatio = "8"
        if stored.samples == 3:
            data_set.PhotometricInterpretation = "YBR_FULL_422"
    data_set.Rows, data_set.Columns = geometry.rows, geometry.columns
    data_set.BitsAllocated = 8 * stored.values.dtype.itemsize
    data_set.BitsStored = stored.bits
    data_set.HighBit = stored.bits - 1
    data_set.PixelRepresentation = int(stored.signed)
    for keyword, value in stored.elements.items():
        setattr(data_set, keyword, value)
    data_set.PixelData = ENCODERS[syntax](stored)
    encapsulated = UID(syntax).is_encapsulated
    data_set["PixelData"].VR = "OB" if encapsulated else "OW"
    data_set["PixelData"].is_undefined_length = encapsulated


def _file(data_set: Dataset, syntax: str) -> bytes:
    """Return the DICOM file (PS3.10 7)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data_set.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = UID(_uid(IMPLEMENTATION))
    meta.ImplementationVersionName = "DAFH_PHANTOM"
    data_set.file_meta = meta
    stream = io.BytesIO()
    dcmwrite(stream, data_set, enforce_file_format=True)
    return stream.getvalue()


def _uid(name: str) -> str:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, digest).int}"
