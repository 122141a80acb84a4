"""From bytes to indexed cases, a batch at a time; one bad item never spoils its neighbours."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.encoding.port import Encoder
from dafh.imaging.image import Image
from dafh.index.case import Case, CaseId, Coding, case_id
from dafh.index.port import CaseIndex, Outcome


@dataclass(frozen=True, slots=True)
class Item:
    """A decoded image on its way into the index, with what the archive knows of it."""

    image: Image
    label: str = ""
    cancer_type: str = ""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of an item: a case and how it was stored."""

    case: CaseId
    outcome: Outcome


class Ingester:
    """Encodes and stores items.

    Parameters
    ----------
    encoder
        Encoder of the model version that the coding is bound to.
    index
        The coding.
    """

    def __init__(self, encoder: Encoder, index: CaseIndex) -> None:
        index.coding.require_model(encoder.model.hash)
        self._encoder = encoder
        self._index = index

    def ingest(self, items: Sequence[Item], deadline: Deadline) -> list[Ingested]:
        """Store a batch; on return what was stored is searchable.

        Raises
        ------
        DafhError
            The encoder or the index failed; nothing can be said of the batch, send it again.
        """
        if not items:
            return []
        coding = self._index.coding
        coding.require_model(self._encoder.model.hash)
        encoded = self._encoder.encode(np.stack([item.image.pixels for item in items]), deadline)
        now = time.time_ns() // 1000
        cases = [
            _case(item, HashCode.of(output), coding, now)
            for item, output in zip(items, encoded.hashes[coding.bits], strict=True)
        ]
        outcomes = self._index.upsert(cases, deadline)
        return [Ingested(case.id, outcome) for case, outcome in zip(cases, outcomes, strict=True)]


def _case(item: Item, code: HashCode, coding: Coding, now: int) -> Case:
    image, metadata = item.image, item.image.metadata
    return Case(
        id=case_id(coding.tenant, coding.archive, metadata.sop_instance_uid, image.frame),
        code=code,
        sop_instance_uid=metadata.sop_instance_uid,
        study_instance_uid=metadata.study_instance_uid,
        series_instance_uid=metadata.series_instance_uid,
        frame=image.frame,
        content_sha256=image.content_sha256,
        ingest_time=now,
        patient_key=metadata.patient_key,
        modality=metadata.modality,
        body_part=metadata.body_part,
        label=item.label,
        cancer_type=item.cancer_type,
    )
