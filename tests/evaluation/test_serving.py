"""What is served is what was evaluated: the same images as DICOM, through the real stack."""

from __future__ import annotations

import hashlib
import io
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

from dafh.client import Client
from dafh.encoding.onnx import OnnxEncoder
from dafh.evaluation.encoded import encode_entries
from dafh.evaluation.manifest import Entry, read_manifest
from dafh.evaluation.metrics import average_precision, by_class, macro
from dafh.evaluation.protocol import by_codes, measure
from dafh.settings import CHECKOUT, ModelSettings
from dafh.stack import Stack
from dafh.v1 import archive_service_pb2

CORPUS = CHECKOUT.parent / "shared" / "corpus"
TOLERANCE = 0.005
#: Modality -> SOP class (PS3.4 B.5); histology travels as Secondary Capture.
SOP_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
}
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
#: A CT-like store: 16 bits, 16 steps a grey level, air at the bottom.
STEPS, INTERCEPT = 16, -1024

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(not CORPUS.is_dir(), reason="needs the research corpus beside the checkout"),
]


def wrapped(entry: Entry) -> bytes:
    """Return a picture as a 16-bit DICOM file whose window gives its grey levels back."""
    grey = cv2.imread(str(entry.file), cv2.IMREAD_GRAYSCALE)
    assert grey is not None
    data_set = Dataset()
    data_set.SOPClassUID = SOP_CLASSES.get(entry.modality, SECONDARY_CAPTURE)
    data_set.SOPInstanceUID = uid(entry, "instance")
    data_set.StudyInstanceUID = uid(entry, "study")
    data_set.SeriesInstanceUID = uid(entry, "series")
    data_set.Modality = entry.modality if entry.modality in SOP_CLASSES else "OT"
    data_set.PatientName = data_set.PatientID = ""
    data_set.BurnedInAnnotation = "NO"
    data_set.Rows, data_set.Columns = grey.shape
    data_set.SamplesPerPixel, data_set.PhotometricInterpretation = 1, "MONOCHROME2"
    data_set.BitsAllocated = data_set.BitsStored = 16
    data_set.HighBit, data_set.PixelRepresentation = 15, 0
    data_set.RescaleSlope, data_set.RescaleIntercept = "1", str(INTERCEPT)
    data_set.RescaleType = "HU" if entry.modality == "CT" else "US"
    data_set.WindowWidth = str(255 * STEPS)
    data_set.WindowCenter = str(255 * STEPS / 2 + INTERCEPT)
    data_set.VOILUTFunction = "LINEAR_EXACT"
    data_set.PixelData = (grey.astype(np.uint16) * STEPS).tobytes()
    data_set["PixelData"].VR = "OW"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data_set.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data_set.file_meta = meta
    stream = io.BytesIO()
    dcmwrite(stream, data_set, enforce_file_format=True)
    return stream.getvalue()


def uid(entry: Entry, level: str) -> str:
    digest = hashlib.sha256(f"{level} {entry.file.name}".encode()).hexdigest()
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, digest).int}"


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.gateway.address, timeout=120) as opened:
        yield opened


def served_map(client: Client, database: list[Entry], query: list[Entry]) -> dict[str, float]:
    """Return MAP@10 by class of the answers of the running stack."""
    results = client.index(
        (
            archive_service_pb2.IndexCasesRequest(dicom=wrapped(one), label=one.class_name)
            for one in database
        ),
        timeout=600,
    )
    classes = {
        result.indexed.cases[0].name: one.class_name
        for result, one in zip(results, database, strict=True)
    }

    def ask(entry: Entry) -> list[bool]:
        hits = client.retrieve(dicom=wrapped(entry), top_k=1000).hits
        ours = [classes[hit.case.name] for hit in hits if hit.case.name in classes]
        return [name == entry.class_name for name in ours[:10]]

    with ThreadPoolExecutor(4) as pool:
        relevant = np.array(list(pool.map(ask, query)))
    return by_class(average_precision(relevant), [one.class_name for one in query])


def evaluated_map(stack: Stack, database: list[Entry], query: list[Entry]) -> dict[str, float]:
    encoder = OnnxEncoder(ModelSettings().model_repository, stack.model_version)
    answers, asks = encode_entries(database, encoder), encode_entries(query, encoder)
    return measure(answers, asks, by_codes(stack.bits)).map_at_10.per_class


def entries(split: str, share: int) -> list[Entry]:
    """Return every `share`-th image of a split, so that each class is there."""
    known = read_manifest(CORPUS / "manifest.csv", CORPUS)
    return [entry for entry in known if entry.split == split][::share]


def test_a_sample_sent_as_dicom_is_answered_as_it_was_evaluated(
    client: Client, stack: Stack
) -> None:
    database, query = entries("database", 12), entries("query", 6)
    served = served_map(client, database, query)
    evaluated = evaluated_map(stack, database, query)
    assert macro(served) == pytest.approx(macro(evaluated), abs=TOLERANCE)
    assert 0.2 < macro(evaluated) < 1


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_query_split_sent_as_dicom_is_answered_as_it_was_evaluated(
    client: Client, stack: Stack
) -> None:
    database, query = entries("database", 1), entries("query", 1)
    served = served_map(client, database, query)
    evaluated = evaluated_map(stack, database, query)
    assert macro(served) == pytest.approx(macro(evaluated), abs=TOLERANCE)
