"""A case: one indexed frame, what a hit points to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NewType

from dafh.codes import HashCode
from dafh.errors import FailedPrecondition, Reason
from dafh.imaging.image import PatientKey

#: Primary key of a case: 32 hexadecimal digits.
CaseId = NewType("CaseId", str)

#: Name of a coding within its archive, from model hash and code length: 16 hexadecimal digits.
CodingKey = NewType("CodingKey", str)

#: Tenant of callers without an identity, and the archive they get when they name none.
DEFAULT_TENANT = "default"
DEFAULT_ARCHIVE = "default"


def digest(*parts: str) -> str:
    """Return the SHA-256 of texts, hexadecimal; no two lists of texts are written the same way."""
    text = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
    return hashlib.sha256(text).hexdigest()


def case_id(tenant: str, archive: str, sop_instance_uid: str, frame: int) -> CaseId:
    """Return the key of a frame: the same frame has the same key whenever it arrives."""
    return CaseId(digest(tenant, archive, sop_instance_uid, str(frame))[:32])


@dataclass(frozen=True, slots=True)
class Coding:
    """One archive coded by one model version at one code length: one collection of the index."""

    tenant: str
    archive: str
    #: SHA-256 of the model's graph and weights, hexadecimal.
    model_hash: str
    model_version: int
    bits: int
    #: Public name of the key that made the patient keys.
    key_id: str
    #: Whether its cases lie in a collection with those of other archives and tenants.
    shared: bool = False

    @property
    def key(self) -> CodingKey:
        """Its name within the archive."""
        return CodingKey(digest(self.model_hash, str(self.bits))[:16])

    def require_model(self, model_hash: str) -> None:
        """Refuse to mix codes of two models.

        Raises
        ------
        FailedPrecondition
            The encoder serves another model than the one this coding is bound to.
        """
        if model_hash != self.model_hash:
            raise FailedPrecondition(
                Reason.MODEL_NOT_LOADED,
                f"The archive is coded by model {self.model_hash[:12]} (version "
                f"{self.model_version}); the encoder serves {model_hash[:12]}.",
                remedy="Load the archive's model version, or use an archive of the served one.",
            )


@dataclass(frozen=True, slots=True)
class Case:
    """An indexed frame. Text fields are "" where unknown."""

    id: CaseId
    code: HashCode
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    frame: int
    content_sha256: str
    #: Microseconds since the epoch, UTC.
    ingest_time: int
    patient_key: PatientKey = PatientKey("")
    modality: str = ""
    body_part: str = ""
    label: str = ""
    cancer_type: str = ""
