"""The servers that commands work with: the running embedded stack, or those that settings name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from dafh.deadline import Deadline
from dafh.encoding.port import Encoder, ModelVersion
from dafh.encoding.triton import TritonEncoder, TritonServer
from dafh.errors import NotFound, Reason
from dafh.imaging.image import PatientKeyer
from dafh.index.archive import Archive
from dafh.index.archives import Archives
from dafh.index.case import Coding, CodingKey
from dafh.index.connection import Connection
from dafh.index.endpoint import Endpoint, endpoint
from dafh.index.live import CaseWriter, LiveArchive, OneCoding
from dafh.index.milvus import MilvusIndex
from dafh.security.keys import load_key
from dafh.security.settings import TritonTlsSettings
from dafh.settings import (
    DataSettings,
    MilvusSettings,
    ModelSettings,
    PatientKeySettings,
    Tenancy,
    TritonSettings,
    load,
)
from dafh.stack import Stack, read_stack

#: Seconds that a question to a server may take before a job begins.
SECONDS = 60.0


class TritonAccess(TritonSettings, TritonTlsSettings):
    """Where Triton serves, and how the two recognise each other."""


@dataclass(frozen=True, slots=True)
class Triton:
    """Where Triton serves, and what we prove ourselves with."""

    address: str
    #: ``None`` for plaintext, on this machine only.
    credentials: grpc.ChannelCredentials | None = None
    #: Name in Triton's certificate, where it is not the host of the address.
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where everything is but Milvus."""

    triton: Triton
    model_version: int
    bits: int
    patient_key_file: Path
    #: For what jobs keep between runs.
    data_dir: Path

    @property
    def key(self) -> bytes:
        """The key of patient pseudonyms."""
        return load_key(self.patient_key_file)


def soon() -> Deadline:
    """Return the deadline of a question that is asked before a job begins."""
    return Deadline.after(SECONDS)


def deployment(data_dir: Path | None) -> Deployment:
    """Return what the running stack says, or settings where DAFH_MILVUS_URI is one of them.

    Raises
    ------
    Misconfigured
        No stack runs, or the settings are not usable.
    """
    home, stack = data_dir or load(DataSettings).data_dir, _stack(data_dir)
    if stack is not None:
        return Deployment(
            triton=Triton(stack.triton.address),
            model_version=stack.model_version,
            bits=stack.bits,
            patient_key_file=stack.patient_key_file,
            data_dir=home,
        )
    access = load(TritonAccess)
    address = access.triton_address
    return Deployment(
        triton=Triton(address, access.triton_credentials(address), access.triton_server_name),
        model_version=load(ModelSettings).model_version,
        bits=load(MilvusSettings).bits,
        patient_key_file=patient_key_file(data_dir),
        data_dir=home,
    )


def patient_key_file(data_dir: Path | None) -> Path:
    """Return the file with the key of patient pseudonyms.

    Raises
    ------
    Misconfigured
        As `deployment`.
    """
    stack = _stack(data_dir)
    return stack.patient_key_file if stack else load(PatientKeySettings).patient_key_file


def _stack(data_dir: Path | None) -> Stack | None:
    """Return the note of the running stack; ``None`` where settings name another Milvus."""
    if "milvus_uri" in load(MilvusSettings).model_fields_set:
        return None
    return read_stack(data_dir or load(DataSettings).data_dir)


@dataclass(frozen=True, slots=True)
class Opened:
    """A Milvus that answers, and a tenant's archives in it."""

    connection: Connection
    archives: Archives

    def writer(self, coding: Coding) -> CaseWriter:
        """Return what writes into a coding: where it is live, also into one that is to follow."""
        if self.archives.get(coding.archive, soon()).live == coding:
            return LiveArchive(self.connection, coding.tenant, coding.archive)
        return OneCoding(MilvusIndex(self.connection, coding))


@contextmanager
def opened(tenant: str, data_dir: Path | None) -> Iterator[Opened]:
    """Connect to Milvus alone for the length of the block.

    Raises
    ------
    Misconfigured
        No stack runs, or the settings are not usable.
    Unavailable
        Milvus does not answer.
    """
    settings, stack = load(MilvusSettings), _stack(data_dir)
    where = endpoint(settings, tenant) if stack is None else Endpoint(stack.milvus_uri)
    shared = stack is None and settings.milvus_tenancy is Tenancy.SHARED
    connection = Connection(where, soon())
    try:
        yield Opened(connection, Archives(connection, tenant, shared=shared))
    finally:
        connection.close()


def chosen_coding(archive: Archive, key: str) -> Coding:
    """Return the coding of an archive that a key names; the live one where it is "".

    Raises
    ------
    NotFound
        There is none.
    """
    found = archive.find(CodingKey(key)) if key else archive.live
    if found is None:
        raise NotFound(
            Reason.CODING_NOT_FOUND,
            "The archive has no such coding.",
            remedy="`dafh archive show` lists those that it has.",
            subject="coding",
        )
    return found


@dataclass(slots=True)
class Encoders:
    """An encoder for each model version that Triton serves, made when it is asked for first."""

    triton: TritonServer
    _by_version: dict[int, TritonEncoder] = field(default_factory=dict)

    def describe(self, version: int) -> ModelVersion:
        """Return what Triton says of a model version."""
        return self._of(version).describe(soon())

    def of(self, coding: Coding, deadline: Deadline) -> Encoder:
        """Return what makes a coding's codes.

        Raises
        ------
        FailedPrecondition
            Triton does not serve the model.
        """
        encoder = self._of(coding.model_version)
        coding.require_model(encoder.describe(deadline).hash)
        return encoder

    def close(self) -> None:
        """Let go of the connections, which all of them share."""
        self.triton.close()

    def _of(self, version: int) -> TritonEncoder:
        # Of two threads the first one's stays.
        return self._by_version.get(version) or self._by_version.setdefault(
            version, TritonEncoder(self.triton, version)
        )


@dataclass(frozen=True, slots=True)
class Servers:
    """A deployment whose servers answer."""

    deployment: Deployment
    connection: Connection
    archives: Archives
    encoders: Encoders

    def coding(self, tenant: str, archive: str, version: int | None = None) -> Coding:
        """Return how a model version of the deployment, by default its own, codes an archive."""
        model = self.encoders.describe(version or self.deployment.model_version)
        keyer = PatientKeyer(self.deployment.key, tenant)
        return Coding(
            tenant=tenant,
            archive=archive,
            model_hash=model.hash,
            model_version=model.version,
            bits=self.deployment.bits,
            key_id=keyer.key_id,
        )


@contextmanager
def connected(tenant: str, data_dir: Path | None) -> Iterator[Servers]:
    """Connect to all servers for the length of the block; Triton is asked when it is needed.

    Raises
    ------
    Misconfigured
        As `deployment`.
    Unavailable
        Milvus does not answer.
    """
    found = deployment(data_dir)
    triton = TritonServer(
        found.triton.address, found.triton.credentials, server_name=found.triton.server_name
    )
    encoders = Encoders(triton)
    try:
        with opened(tenant, data_dir) as milvus:
            yield Servers(found, milvus.connection, milvus.archives, encoders)
    finally:
        encoders.close()
