"""Images that are indexed and images that ask, as DICOM files, with their classes.

Those of the corpus where it is, each wrapped as it stands (a window keeps its grey levels), because
DICOM is what applications send; phantoms elsewhere.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from bench.codes import CORPUS
from dafh.evaluation.manifest import Entry, read_manifest
from dafh.imaging.phantom import Phantom, phantoms
from tests.imaging.instances import reread, write_instance


@dataclass(frozen=True, slots=True)
class Sample:
    """One image."""

    #: A DICOM file.
    data: bytes
    sop_instance_uid: str
    class_name: str


@dataclass(frozen=True, slots=True)
class Questions:
    """Who answers, who asks, and where they are from."""

    database: list[Sample]
    queries: list[Sample]
    source: str


def questions(most: int, *, corpus: bool = True) -> Questions:
    """Return at most so many images to index, and a fifth as many to ask with."""
    if not (corpus and CORPUS.is_dir()):
        made = (phantoms(most, 1), phantoms(max(1, most // 5), 2))
        database, queries = ([_own(one) for one in some] for some in made)
        return Questions(database, queries, source="phantoms")
    entries = read_manifest(CORPUS / "manifest.csv", CORPUS)
    parts = [
        _spread([entry for entry in entries if entry.split == split], count)
        for split, count in (("database", most), ("query", max(1, most // 5)))
    ]
    numbered = enumerate((entry for part in parts for entry in part), 1)
    samples = [_wrapped(entry, f"2.25.{number}") for number, entry in numbered]
    first = len(parts[0])
    return Questions(samples[:first], samples[first:], source="corpus")


def _own(phantom: Phantom) -> Sample:
    """Make a phantom the only one of its patient, of whom others would else not be answered."""
    data_set, stream = reread(phantom.data), io.BytesIO()
    uid = str(data_set.SOPInstanceUID)
    data_set.PatientID = uid
    data_set.save_as(stream)
    return Sample(stream.getvalue(), uid, phantom.label)


def _spread(entries: Sequence[Entry], most: int) -> list[Entry]:
    """Return at most so many, spread over all: they lie in order of their classes."""
    places = np.unique(np.linspace(0, len(entries) - 1, min(most, len(entries))).astype(int))
    return [entries[place] for place in places]


def _wrapped(entry: Entry, uid: str) -> Sample:
    with Image.open(entry.file) as picture:
        pixels = np.asarray(picture)
    colour: dict[str, Any] = {}
    if pixels.ndim == 3:
        colour = {
            "SamplesPerPixel": 3,
            "PhotometricInterpretation": "RGB",
            "PlanarConfiguration": 0,
        }
    # No two are of one patient, study or series: the corpus says of few who they are of.
    data = write_instance(
        pixels,
        SOPInstanceUID=uid,
        StudyInstanceUID=f"{uid}.1",
        SeriesInstanceUID=f"{uid}.2",
        PatientID=uid,
        Modality=entry.modality,
        WindowCenter="128",
        WindowWidth="256",
        **colour,
    )
    return Sample(data, uid, entry.class_name)
