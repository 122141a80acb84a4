"""What the handlers stand on: one encoder, one archive's coding, one patient key."""

from __future__ import annotations

import threading

from dafh.deadline import Deadline
from dafh.encoding.port import ModelVersion
from dafh.encoding.triton import TritonEncoder
from dafh.errors import DafhError, NotFound, Reason
from dafh.imaging.image import Image, PatientKeyer
from dafh.imaging.pool import DecoderPool
from dafh.index.case import DEFAULT_ARCHIVE, DEFAULT_TENANT, Coding
from dafh.index.connection import holding
from dafh.index.milvus import MilvusIndex
from dafh.ingest.ingest import Ingester
from dafh.retrieval.retrieve import Retriever
from dafh.security.keys import load_key
from dafh_gateway.settings import GatewaySettings


class Backend:
    """Decoder processes, and connections to Triton and Milvus, made when first needed and kept.

    Parameters
    ----------
    settings
        Of the gateway.

    Raises
    ------
    Misconfigured
        The patient key cannot be read, or the decoder processes cannot be started.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._keyer = PatientKeyer(load_key(settings.patient_key_file), DEFAULT_TENANT)
        self.encoder = TritonEncoder(settings.triton_address, settings.model_version)
        self._index: MilvusIndex | None = None
        self._lock = threading.Lock()
        self._decoders = DecoderPool(
            workers=settings.decode_workers, keyer=self._keyer, policy=settings.policy
        )

    def decode(
        self,
        data: bytes,
        frame: int,
        model: ModelVersion,
        *,
        content_hash: bool = False,
        deadline: Deadline,
    ) -> Image:
        """Turn a caller's bytes into a model's input, in a process that may die of them.

        A case that is stored needs its content hash, a query does not.
        """
        return self._decoders.decode(
            data, side=model.side, frame=frame, content_hash=content_hash, deadline=deadline
        )

    def index(self, archive: str, deadline: Deadline) -> MilvusIndex:
        """Return the live coding of an archive, made on first use.

        Raises
        ------
        NotFound
            There is no such archive.
        """
        if archive != DEFAULT_ARCHIVE:
            raise NotFound(
                Reason.ARCHIVE_NOT_FOUND,
                f"There is no archive {archive!r}.",
                remedy=f"This version has the archive {DEFAULT_ARCHIVE!r} only.",
                subject="archive",
            )
        with holding(self._lock, deadline, "opening the archive"):
            if self._index is None:
                self._index = MilvusIndex.open_or_create(
                    self._settings.milvus_uri, self._coding(deadline), deadline
                )
            return self._index

    def _coding(self, deadline: Deadline) -> Coding:
        model = self.encoder.describe(deadline)
        return Coding(
            tenant=DEFAULT_TENANT,
            archive=DEFAULT_ARCHIVE,
            model_hash=model.hash,
            model_version=model.version,
            bits=self._settings.bits,
            key_id=self._keyer.key_id,
        )

    def retriever(self, archive: str, deadline: Deadline) -> Retriever:
        """Return what answers queries against an archive."""
        return Retriever(self.encoder, self.index(archive, deadline))

    def ingester(self, archive: str, deadline: Deadline) -> Ingester:
        """Return what writes into an archive."""
        return Ingester(self.encoder, self.index(archive, deadline))

    def down(self, seconds: float) -> list[str]:
        """Return which of the systems we stand on do not answer, each within `seconds`."""
        down = []
        if not self.encoder.ready(Deadline.after(seconds)):
            down.append("triton")
        deadline = Deadline.after(seconds)
        try:
            # Without Triton there may be no coding yet to ask Milvus for.
            if self._index is not None or not down:
                self.index(DEFAULT_ARCHIVE, deadline).count(deadline)
        except DafhError:
            down.append("milvus")
        return down

    def close(self) -> None:
        """End the decoder processes and let go of all connections."""
        self._decoders.close()
        self.encoder.close()
        if self._index is not None:
            self._index.close()
