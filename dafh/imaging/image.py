"""What leaves the imaging package: pixels for the model, public metadata, and nothing else."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import NewType

import numpy as np
from numpy.typing import NDArray

#: Version of the way from bytes to pixels; part of every model version's metadata. Any change that
#: alters an output pixel raises it.
IMAGING_VERSION = 2

#: A keyed pseudonym of a patient, 64 hexadecimal digits; "" where the file names no patient.
PatientKey = NewType("PatientKey", str)


@dataclass(frozen=True, slots=True, repr=False)
class PatientKeyer:
    """Turns patient identity into a `PatientKey`; the only thing that may see both.

    ``HMAC-SHA-256(key, tenant | issuer | patient id)``, each part preceded by its length so that
    no two triples share a message.
    """

    key: bytes
    tenant: str

    def __repr__(self) -> str:
        return f"PatientKeyer(key_id={self.key_id!r})"

    @property
    def key_id(self) -> str:
        """Public name of the key, 16 hexadecimal digits: stored with each case."""
        return hmac.new(self.key, b"dafh key id", hashlib.sha256).hexdigest()[:16]

    def patient(self, issuer: str, patient_id: str) -> PatientKey:
        """Return the pseudonym of a patient; "" where `patient_id` is blank.

        Parameters
        ----------
        issuer
            Issuer of Patient ID (0010,0021).
        patient_id
            Patient ID (0010,0020).
        """
        if not patient_id.strip():
            return PatientKey("")
        parts = [part.strip().encode() for part in (self.tenant, issuer, patient_id)]
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return PatientKey(hmac.new(self.key, message, hashlib.sha256).hexdigest())


@dataclass(frozen=True, slots=True)
class Metadata:
    """The public elements of an instance (allow-list of the design; "" or 0 where absent).

    Everything a caller may see, log or store. UIDs are of digits and dots, 64 characters at most.
    """

    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    modality: str = ""
    body_part: str = ""
    laterality: str = ""
    view: str = ""
    manufacturer_model: str = ""
    study_year: int = 0
    rows: int = 0
    columns: int = 0
    frames: int = 1
    transfer_syntax: str = ""
    patient_key: PatientKey = PatientKey("")


@dataclass(frozen=True, slots=True)
class Image:
    """One frame, ready for the model."""

    #: uint8 ``[1, S, S]``.
    pixels: NDArray[np.uint8]
    #: Frame number, from 1.
    frame: int
    #: SHA-256 over the stored values (rows, columns, samples, bits; before LUTs and resize); ""
    #: where it was not asked for.
    content_sha256: str
    metadata: Metadata
    #: What was done to the values, in order, for people: "rescale", "window 40/400", "invert", ….
    applied: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
