"""From bytes to indexed cases, a batch at a time; one bad item never spoils its neighbours."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.encoding.port import Encoder
from dafh.errors import FailedPrecondition
from dafh.imaging.image import Image
from dafh.index.case import Case, CaseId, Coding, CodingKey, case_id
from dafh.index.live import Arrival, CaseWriter, OneCoding
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
    """Encodes items with every model that codes an archive, and stores them.

    Parameters
    ----------
    encoder_of
        Returns the encoder of the model that makes a coding's codes; raises `FailedPrecondition`
        where that model is not loaded.
    writer
        The archive.
    """

    def __init__(
        self, encoder_of: Callable[[Coding, Deadline], Encoder], writer: CaseWriter
    ) -> None:
        self._encoder_of = encoder_of
        self._writer = writer

    @classmethod
    def alone(cls, encoder: Encoder, index: CaseIndex) -> Self:
        """Return one that writes into a coding that stands alone, with one encoder.

        Raises
        ------
        FailedPrecondition
            Another model makes the coding's codes.
        """
        index.coding.require_model(encoder.model.hash)
        return cls(lambda _coding, _deadline: encoder, OneCoding(index))

    def ingest(self, items: Sequence[Item], deadline: Deadline) -> list[Ingested]:
        """Store a batch; on return what was stored is searchable.

        Raises
        ------
        FailedPrecondition
            The model of the live coding is not loaded.
        DafhError
            An encoder or the index failed; nothing can be said of the batch, send it again.
        """
        if not items:
            return []
        live, *others = self._writer.codings(deadline)
        codes = {live.key: self._codes(live, items, deadline)}
        for coding in others:
            try:
                codes[coding.key] = self._codes(coding, items, deadline)
            except FailedPrecondition:
                # It gets these cases when it is filled; a switch to it would say that they lack.
                continue
        now = time.time_ns() // 1000
        arrivals = [
            Arrival(_case(item, codes[live.key][place], live, now), _at(codes, place))
            for place, item in enumerate(items)
        ]
        outcomes = self._writer.write(arrivals, deadline)
        return [
            Ingested(arrival.case.id, outcome)
            for arrival, outcome in zip(arrivals, outcomes, strict=True)
        ]

    def _codes(self, coding: Coding, items: Sequence[Item], deadline: Deadline) -> list[HashCode]:
        encoder = self._encoder_of(coding, deadline)
        coding.require_model(encoder.model.hash)
        encoded = encoder.encode(np.stack([item.image.pixels for item in items]), deadline)
        return [HashCode.of(output) for output in encoded.hashes[coding.bits]]


def _at(codes: dict[CodingKey, list[HashCode]], place: int) -> dict[CodingKey, HashCode]:
    return {key: made[place] for key, made in codes.items()}


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
