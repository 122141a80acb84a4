"""The servers that a job works with: the running embedded stack, or those that settings name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from dafh.deadline import Deadline
from dafh.encoding.port import Encoder, ModelVersion
from dafh.encoding.triton import TritonEncoder
from dafh.errors import Misconfigured, Reason
from dafh.imaging.image import PatientKeyer
from dafh.index.archives import Archives
from dafh.index.case import Coding
from dafh.index.connection import Connection
from dafh.index.endpoint import Endpoint, endpoint
from dafh.security.keys import load_key
from dafh.settings import (
    MilvusSettings,
    ModelSettings,
    PatientKeySettings,
    Tenancy,
    TritonSettings,
    default_data_dir,
    load,
)
from dafh.stack import read_stack

#: Seconds that a question to a server may take before a job begins.
SECONDS = 60.0
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where everything is."""

    milvus: Endpoint
    #: Whether new archives share collections.
    shared: bool
    triton: str
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


def deployment(tenant: str, data_dir: Path | None) -> Deployment:
    """Return the servers that DAFH_MILVUS_URI and its like name, else those of the running stack.

    Raises
    ------
    Misconfigured
        No stack runs, or the settings are not usable.
    """
    milvus, home = load(MilvusSettings), data_dir or default_data_dir()
    if "milvus_uri" not in milvus.model_fields_set:
        stack = read_stack(home)
        return Deployment(
            milvus=Endpoint(stack.milvus_uri),
            shared=False,
            triton=stack.triton.address,
            model_version=stack.model_version,
            bits=stack.bits,
            patient_key_file=stack.patient_key_file,
            data_dir=home,
        )
    triton = load(TritonSettings).triton_address
    if urlsplit(f"//{triton}").hostname not in _LOOPBACK:
        raise Misconfigured(
            Reason.INSECURE_ADDRESS,
            "Refusing to send images to a Triton on another machine without TLS.",
            remedy="Name one on a loopback address, such as a sidecar.",
            subject="triton_address",
        )
    return Deployment(
        milvus=endpoint(milvus, tenant),
        shared=milvus.milvus_tenancy is Tenancy.SHARED,
        triton=triton,
        model_version=load(ModelSettings).model_version,
        bits=milvus.bits,
        patient_key_file=load(PatientKeySettings).patient_key_file,
        data_dir=home,
    )


@dataclass(slots=True)
class Encoders:
    """An encoder for each model version that Triton serves, made when it is asked for first."""

    triton: str
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
        """Let go of connections."""
        for encoder in self._by_version.values():
            encoder.close()

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
    """Connect to the servers for the length of the block.

    Raises
    ------
    Unavailable
        Milvus does not answer.
    """
    found = deployment(tenant, data_dir)
    connection = Connection(found.milvus, soon())
    encoders = Encoders(found.triton)
    try:
        archives = Archives(connection, tenant, shared=found.shared)
        yield Servers(found, connection, archives, encoders)
    finally:
        encoders.close()
        connection.close()
