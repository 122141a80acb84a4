"""The bounded reader and pydicom read the same values, whatever the encoding."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import pydicom.data
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom import dcmread, dcmwrite
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dafh.errors import InvalidInput
from dafh.imaging.elements import IMPLICIT_VR, DataSet, Tag
from dafh.imaging.limits import DEFAULT_LIMITS
from dafh.imaging.reader import PIXEL_TAGS, read_instance

SHARED = Path(__file__).parents[3] / "shared" / "dicom"
BUNDLED = Path(pydicom.data.__file__).parent / "test_files"

ENCODINGS = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
#: Elements that stand in a data set and may be compared; the file meta group is apart.
COMPARED = [
    tag for tag in Tag if tag >> 16 != 0x0002 and tag not in PIXEL_TAGS and tag >> 16 != 0x7FE0
]
#: Without an unknown character set and LUTs without descriptor, which pydicom does not write.
GENERATED = [tag for tag in COMPARED if tag not in (Tag.SPECIFIC_CHARACTER_SET, Tag.LUT_DATA)]

text = st.text("ABCXYZ019_", max_size=12)
VALUES: dict[str, st.SearchStrategy[object]] = {
    "CS": text,
    "LO": text,
    "UI": st.from_regex(r"1\.[1-9]{1,20}", fullmatch=True),
    "DA": st.just("20240229"),
    "TM": st.just("101500.25"),
    "DT": st.just("20240229101500"),
    "DS": st.lists(st.integers(-999, 9999).map(str), max_size=3),
    "IS": st.lists(st.integers(0, 9999).map(str), max_size=3),
    "US": st.integers(0, 2**16 - 1),
    "OW": st.binary(max_size=20).map(lambda raw: raw[: len(raw) // 2 * 2]),
    "OB": st.binary(max_size=20).map(lambda raw: raw[: len(raw) // 2 * 2]),
    "OV": st.binary(max_size=24).map(lambda raw: raw[: len(raw) // 8 * 8]),
    "FL": st.floats(width=32, allow_nan=False),
    "FD": st.floats(allow_nan=False),
    "SH": text,
}


@st.composite
def data_sets(draw: st.DrawFn, depth: int = 0) -> Dataset:
    """Draw a data set of listed, unlisted and private elements and of sequences of both kinds."""
    made = Dataset()
    made.is_undefined_length_sequence_item = draw(st.booleans())
    for tag in draw(st.sets(st.sampled_from(GENERATED), max_size=9)):
        vr = IMPLICIT_VR[tag]
        if vr == "SQ" and depth < 3:
            made.add_new(tag, "SQ", draw(st.lists(data_sets(depth + 1), max_size=2)))
            made[tag].is_undefined_length = draw(st.booleans())
        elif vr != "SQ":
            made.add_new(tag, vr, draw(VALUES[vr]))
    if draw(st.booleans()):
        made.add_new(0x00091001, "LO", "private")
        made.add_new(0x00100010, "PN", "Not^Listed")
    if depth < 3 and draw(st.booleans()):
        # Referenced Image Sequence: nothing in it is wanted, all of it must be stepped through.
        made.add_new(0x00081140, "SQ", draw(st.lists(data_sets(depth + 1), max_size=2)))
        made[0x00081140].is_undefined_length = draw(st.booleans())
    return made


def written(data_set: Dataset, syntax: str) -> bytes:
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.MediaStorageSOPClassUID = UID("1.2.3")
    data_set.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    data_set.file_meta.TransferSyntaxUID = UID(syntax)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcmwrite(stream, data_set, enforce_file_format=True)
    return stream.getvalue()


def differences(ours: DataSet, theirs: Dataset, where: str = "") -> list[str]:
    """Return the names of the listed elements that the two readers see differently."""
    found = []
    for tag in COMPARED:
        if tag not in theirs:
            if tag in ours:
                found.append(f"{where}{tag.name}: not there")
        elif IMPLICIT_VR[tag] == "SQ":
            items, inner = ours.items(tag), list(theirs[tag].value or [])
            if len(inner) != len(items):
                found.append(f"{where}{tag.name}: {len(items)} items, not {len(inner)}")
            for number, (own, other) in enumerate(zip(items, inner, strict=False)):
                found += differences(own, other, f"{where}{tag.name}[{number}].")
        else:
            known = theirs.get_item(tag)
            if isinstance(known, RawDataElement) and ours.raw(tag) != (known.value or b""):
                found.append(f"{where}{tag.name}: other bytes")
    return found


def shared_groups() -> Dataset:
    """Return a data set whose first group, 5200, is one of its own in the other byte order."""
    data_set = Dataset()
    data_set.SharedFunctionalGroupsSequence = [Dataset()]
    return data_set


@settings(max_examples=150, deadline=None)
@given(data_set=data_sets(), syntax=st.sampled_from(ENCODINGS))
@example(data_set=shared_groups(), syntax=ImplicitVRLittleEndian)
def test_what_pydicom_wrote_is_read_as_pydicom_reads_it(data_set: Dataset, syntax: str) -> None:
    data = written(data_set, syntax)
    theirs = dcmread(io.BytesIO(data))
    assert differences(read_instance(data, DEFAULT_LIMITS).data_set, theirs) == []


def files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def compared(paths: list[Path]) -> int:
    """Compare files as far as both readers open them; return how many that were."""
    count = 0
    for path in paths:
        data = path.read_bytes()
        try:
            ours = read_instance(data, DEFAULT_LIMITS)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                theirs = dcmread(io.BytesIO(data), stop_before_pixels=True)
                wrong = differences(ours.data_set, theirs)
        except (InvalidInput, InvalidDicomError, OSError, NotImplementedError):
            continue
        assert wrong == [], path.name
        count += 1
    return count


@pytest.mark.skipif(not SHARED.exists(), reason="the shared DICOM files are not here")
def test_the_shared_files_are_read_as_pydicom_reads_them() -> None:
    assert compared(files(SHARED)) >= 180


def test_the_files_that_pydicom_brings_are_read_as_pydicom_reads_them() -> None:
    assert compared(files(BUNDLED)) >= 90
