"""Batches into the archive through `dafh.ingest`, with an eye on how long each half takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dafh.deadline import Deadline
from dafh.encoding.port import Encoded, Encoder, ModelVersion
from dafh.index.case import Coding
from dafh.index.live import Arrival, CaseWriter
from dafh.index.port import Outcome
from dafh.ingest.ingest import Ingester, Item
from dafh_jobs.deployment import Encoders
from dafh_jobs.pace import Pace, Stage
from dafh_jobs.storing import Store


def into(writer: CaseWriter, encoders: Encoders, pace: Pace) -> Store:
    """Return what stores batches in an archive, in every coding that it has and Triton serves."""

    def encoder_of(coding: Coding, deadline: Deadline) -> Encoder:
        return TimedEncoder(encoders.of(coding, deadline), pace)

    ingester = Ingester(encoder_of, _TimedWriter(writer, pace))

    def store(items: Sequence[Item], deadline: Deadline) -> list[Outcome]:
        return [ingested.outcome for ingested in ingester.ingest(items, deadline)]

    return store


@dataclass(frozen=True, slots=True)
class TimedEncoder:
    """An encoder whose work is counted."""

    encoder: Encoder
    pace: Pace

    @property
    def model(self) -> ModelVersion:
        """The model version that answers."""
        return self.encoder.model

    def encode(
        self, images: NDArray[np.uint8], deadline: Deadline, *, saliency: bool = False
    ) -> Encoded:
        """Encode, and count the time."""
        with self.pace.busy(Stage.ENCODE):
            return self.encoder.encode(images, deadline, saliency=saliency)

    def close(self) -> None:
        """Leave it open: it belongs to others."""


@dataclass(frozen=True, slots=True)
class _TimedWriter:
    writer: CaseWriter
    pace: Pace

    def codings(self, deadline: Deadline) -> Sequence[Coding]:
        return self.writer.codings(deadline)

    def write(self, arrivals: Sequence[Arrival], deadline: Deadline) -> list[Outcome]:
        with self.pace.busy(Stage.INDEX):
            return self.writer.write(arrivals, deadline)
