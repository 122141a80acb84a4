"""Sources for tests, and what is read of them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

from pydicom import DataElement, Dataset, dcmwrite
from pydicom.config import IGNORE
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from dafh.imaging.limits import DEFAULT_LIMITS
from dafh_jobs.sources import Entry, entries

#: Bytes of a file that are kept.
MOST = 2**24


def found(*words: object) -> list[Entry]:
    return list(entries(map(str, words), DEFAULT_LIMITS))


def bytes_of(read: list[Entry]) -> list[bytes]:
    return [entry.read(MOST).beginning for entry in read]


def faults(read: list[Entry]) -> list[str]:
    """Return why entries cannot be taken."""
    reasons = []
    for entry in read:
        try:
            fault = entry.read(MOST).fault
        except OSError:
            reasons.append("unreadable")
        else:
            reasons += [fault.reason.value] if fault else []
    return reasons


def unreadable(read: list[Entry]) -> int:
    return faults(read).count("unreadable")


def dicomdir(named: list[list[str]]) -> bytes:
    """Return a DICOMDIR with a record for each file."""
    data_set = Dataset()
    records = []
    for parts in named:
        record = Dataset()
        record.DirectoryRecordType = "IMAGE"
        # Some parts are no names that DICOM allows.
        record.add(DataElement("ReferencedFileID", "CS", parts, validation_mode=IGNORE))
        records.append(record)
    data_set.DirectoryRecordSequence = records
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data_set.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    data_set.file_meta.MediaStorageSOPInstanceUID = UID("2.25.5")
    stream = io.BytesIO()
    dcmwrite(stream, data_set, enforce_file_format=True)
    return stream.getvalue()


def zipped(folder: Path, members: dict[str, bytes]) -> Path:
    """Return a zip archive."""
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return folder / "a.zip"


def tarred(file: Path, *members: tuple[str, bytes], mode: str = "w") -> Path:
    """Return a tar archive."""
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload]  # one of its modes
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return file
