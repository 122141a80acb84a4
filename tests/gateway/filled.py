"""An archive with phantoms in it."""

from __future__ import annotations

from dafh.client import Client
from dafh.imaging.phantom import Phantom, phantoms
from dafh.settings import ModelSettings
from dafh.v1 import archive_service_pb2

#: Version that new archives are coded by.
PREFERRED = ModelSettings().model_version


def fill(client: Client, archive: str, count: int = 40, seed: int = 5) -> dict[str, Phantom]:
    """Index phantoms; return them by the names of their cases."""
    made = list(phantoms(count, seed))
    results = client.index(
        archive_service_pb2.IndexCasesRequest(
            parent=f"archives/{archive}", dicom=one.data, label=one.label
        )
        for one in made
    )
    cases = [result.indexed.cases[0] for result in results]
    return {case.name: one for case, one in zip(cases, made, strict=True)}
