"""The running stack's archive, looked at directly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dafh.deadline import Deadline
from dafh.encoding.triton import TritonEncoder
from dafh.imaging.image import PatientKeyer
from dafh.index.case import DEFAULT_ARCHIVE, DEFAULT_TENANT, Coding
from dafh.index.milvus import MilvusIndex
from dafh.security.keys import load_key
from dafh.stack import Stack


@pytest.fixture
def archive(stack: Stack) -> Iterator[MilvusIndex]:
    encoder = TritonEncoder(stack.triton.address, stack.model_version)
    model = encoder.model
    encoder.close()
    coding = Coding(
        tenant=DEFAULT_TENANT,
        archive=DEFAULT_ARCHIVE,
        model_hash=model.hash,
        model_version=model.version,
        bits=stack.bits,
        key_id=PatientKeyer(load_key(stack.patient_key_file), DEFAULT_TENANT).key_id,
    )
    index = MilvusIndex.open_or_create(stack.milvus_uri, coding, Deadline.after(10))
    yield index
    index.close()
