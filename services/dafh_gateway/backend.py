"""What the services stand on: decoder processes, the models of Triton, the archives of Milvus."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from dafh.deadline import Deadline
from dafh.encoding.port import Encoder, ModelVersion
from dafh.encoding.triton import TritonEncoder, TritonServer, read_description
from dafh.errors import DafhError, FailedPrecondition, NotFound, Overloaded, Reason
from dafh.imaging.image import Image, PatientKeyer
from dafh.imaging.pool import DecoderPool
from dafh.index.archive import Archive, key_mismatch
from dafh.index.archives import Archives
from dafh.index.case import DEFAULT_ARCHIVE, DEFAULT_TENANT, Coding
from dafh.index.connection import Connection, holding
from dafh.index.endpoint import Endpoint, endpoint
from dafh.index.erasure import Eraser
from dafh.index.live import LiveArchive
from dafh.security.keys import load_key
from dafh.settings import Tenancy
from dafh_gateway.probe import PICTURE, SIDE, require_sense
from dafh_gateway.settings import GatewaySettings

#: Seconds without a decoded image after which one is decoded to see whether that works, and how
#: long that may take.
PROBE_AFTER_S, PROBE_S = 10.0, 5.0
#: What the gateway stands on.
PARTS = ("triton", "milvus", "decoders")


class Backend:
    """Connections and processes, made when first needed and kept; for many threads at once.

    Parameters
    ----------
    settings
        Of the gateway.
    headers
        Returns metadata to send to Triton, so that a trace goes on there.

    Raises
    ------
    Misconfigured
        The patient key cannot be read, or the decoder processes cannot be started.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        headers: Callable[[], tuple[tuple[str, str], ...]] = tuple,
    ) -> None:
        self._settings = settings
        self._patient_key = load_key(settings.patient_key_file)
        self._triton = TritonServer(
            settings.triton_address,
            settings.triton_credentials(settings.triton_address),
            headers,
            settings.triton_server_name,
        )
        #: Of the server as such; where each tenant has a database of its own, of no tenant.
        self._milvus = replace(
            endpoint(settings, DEFAULT_TENANT), database=settings.milvus_database
        )
        self._connections: dict[Endpoint, Connection] = {}
        self._encoders: dict[int, TritonEncoder] = {}
        self._archives: dict[tuple[str, str], LiveArchive] = {}
        self._decoders: dict[str, DecoderPool] = {}
        self._pooling = threading.Lock()
        self._connecting = threading.Lock()
        #: Whether Triton has been seen to compute since it was away last.
        self._sensible = False
        #: When an image was decoded last.
        self._decoded = -math.inf
        self.decoders(DEFAULT_TENANT)

    @property
    def preferred(self) -> int:
        """The model version of those who name none."""
        return self._settings.model_version

    def keyer(self, tenant: str) -> PatientKeyer:
        """Return what makes the pseudonyms of a tenant's patients."""
        return PatientKeyer(self._patient_key, tenant)

    def decoders(self, tenant: str) -> DecoderPool:
        """Return the processes that decode for a tenant, made on its first call.

        Each tenant has its own: the keyer of its patients lives inside them.
        """
        with self._pooling:
            if tenant not in self._decoders:
                limits = self._settings.limits
                most = max(
                    limits.request_bytes,
                    self._settings.max_upload_bytes,
                    self._settings.max_indexed_bytes,
                )
                policy = replace(self._settings.policy, limits=replace(limits, request_bytes=most))
                self._decoders[tenant] = DecoderPool(
                    workers=self._settings.decode_workers,
                    keyer=self.keyer(tenant),
                    policy=policy,
                )
            return self._decoders[tenant]

    def decode(
        self,
        data: bytes,
        frame: int,
        model: ModelVersion,
        *,
        deadline: Deadline,
        tenant: str = DEFAULT_TENANT,
        content_hash: bool = False,
    ) -> Image:
        """Turn a caller's bytes into a model's input, in a process that may die of them.

        A case that is stored needs its content hash, a query does not.
        """
        pool = self.decoders(tenant)
        image = pool.decode(
            data, side=model.side, frame=frame, content_hash=content_hash, deadline=deadline
        )
        self._decoded = time.monotonic()
        return image

    def decode_all(
        self, tenant: str, data: bytes, model: ModelVersion, deadline: Deadline
    ) -> Iterator[Image]:
        """Do as `decode` for every frame."""
        return self.decoders(tenant).decode_all(data, side=model.side, deadline=deadline)

    def encoder(self, version: int, deadline: Deadline) -> Encoder:
        """Return the encoder of a model version.

        Raises
        ------
        FailedPrecondition
            It is not loaded.
        """
        encoder = self._encoders.get(version)
        if encoder is None:
            encoder = TritonEncoder(self._triton, version)
            # Only of versions that exist: numbers come from callers.
            encoder.describe(deadline)
            self._encoders[version] = encoder
        encoder.describe(deadline)
        return encoder

    def encoder_of(self, coding: Coding, deadline: Deadline) -> Encoder:
        """Return the encoder of the model that makes a coding's codes.

        Raises
        ------
        FailedPrecondition
            It is not loaded, or what is loaded under its number is another model.
        """
        encoder = self.encoder(coding.model_version, deadline)
        coding.require_model(encoder.model.hash)
        return encoder

    def models(self, deadline: Deadline) -> list[tuple[ModelVersion, bool]]:
        """Return the known model versions, the newest first, and whether each is loaded."""
        loaded = self._triton.loaded(deadline)
        found = []
        for version, text in sorted(self._triton.described(deadline).items(), reverse=True):
            try:
                found.append((read_description(text), version in loaded))
            except FailedPrecondition:
                # Of another release of DAFH: this one cannot use it.
                continue
        return found

    def catalogue(self, tenant: str, deadline: Deadline) -> Archives:
        """Return a tenant's archives."""
        shared = self._settings.milvus_tenancy is Tenancy.SHARED
        return Archives(self._connected_for(tenant, deadline), tenant, shared=shared)

    def eraser(self, tenant: str, archive: str, deadline: Deadline) -> Eraser:
        """Return what erases cases of an archive."""
        return Eraser(self._connected_for(tenant, deadline), tenant, archive)

    def archive(self, tenant: str, name: str, deadline: Deadline) -> LiveArchive:
        """Return an archive in use.

        Raises
        ------
        NotFound
            There is none.
        FailedPrecondition
            It was made with another patient key.
        """
        key = (tenant, name)
        archive = self._archives.get(key)
        if archive is None:
            archive = LiveArchive(self._connected_for(tenant, deadline), tenant, name)
        try:
            known = archive.archive(deadline)
        except NotFound:
            self._archives.pop(key, None)
            raise
        self._require_key(known)
        return self._archives.setdefault(key, archive)

    def archive_to_fill(self, tenant: str, name: str, deadline: Deadline) -> LiveArchive:
        """Do as `archive`; the default archive is made where there is none."""
        try:
            return self.archive(tenant, name, deadline)
        except NotFound:
            if name != DEFAULT_ARCHIVE:
                raise
        model = self.encoder(self.preferred, deadline).model
        self.catalogue(tenant, deadline).create(
            self.coding(tenant, name, model, self._settings.bits), deadline
        )
        return self.archive(tenant, name, deadline)

    def coding(self, tenant: str, archive: str, model: ModelVersion, bits: int) -> Coding:
        """Return the coding that a new archive begins with."""
        return Coding(
            tenant=tenant,
            archive=archive,
            model_hash=model.hash,
            model_version=model.version,
            bits=bits,
            key_id=self.keyer(tenant).key_id,
        )

    def down(self, seconds: float) -> list[str]:
        """Return which of what we stand on does not work, each asked for `seconds` at most."""
        checks = (self._ask_triton, self._ask_milvus, self._ask_decoders)
        down = []
        for name, ask in zip(PARTS, checks, strict=True):
            try:
                ask(Deadline.after(seconds))
            except Overloaded:
                # It works, and a lot.
                continue
            except DafhError:
                down.append(name)
        return down

    def close(self) -> None:
        """End the decoder processes and let go of all connections."""
        for pool in self._decoders.values():
            pool.close()
        self._triton.close()
        for connection in self._connections.values():
            connection.close()

    def _connected_for(self, tenant: str, deadline: Deadline) -> Connection:
        return self._connected(endpoint(self._settings, tenant), deadline)

    def _connected(self, where: Endpoint, deadline: Deadline) -> Connection:
        with holding(self._connecting, deadline, "connecting to the index"):
            if where not in self._connections:
                self._connections[where] = Connection(where, deadline)
            return self._connections[where]

    def _require_key(self, archive: Archive) -> None:
        ours = self.keyer(archive.tenant).key_id
        if archive.live.key_id != ours:
            raise key_mismatch(archive.live.key_id, ours)

    def _ask_triton(self, deadline: Deadline) -> None:
        """Ask whether the preferred version is loaded; after it was away, whether it computes."""
        sensible, self._sensible = self._sensible, False
        encoder = self.encoder(self.preferred, deadline)
        if not self._triton.ready(self.preferred, deadline):
            raise FailedPrecondition(Reason.MODEL_NOT_LOADED, "The model is not ready.")
        if not sensible:
            require_sense(encoder, deadline)
        self._sensible = True

    def _ask_milvus(self, deadline: Deadline) -> None:
        connection = self._connected(self._milvus, deadline)
        connection.call("asking Milvus", deadline, "list_collections")

    def _ask_decoders(self, deadline: Deadline) -> None:
        # Calls show as well that they work, and a probe that is cut short costs a process.
        if time.monotonic() - self._decoded > PROBE_AFTER_S:
            deadline = Deadline.after(PROBE_S)
            self.decoders(DEFAULT_TENANT).decode(PICTURE, side=SIDE, deadline=deadline)
            self._decoded = time.monotonic()
