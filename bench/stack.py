"""The embedded stack as users start it, `dafh up`, on free ports, to measure it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dafh.deadline import Deadline
from dafh.encoding.onnx import OnnxEncoder
from dafh.imaging.image import PatientKeyer
from dafh.index.case import DEFAULT_ARCHIVE, DEFAULT_TENANT, Coding
from dafh.index.milvus import MilvusIndex
from dafh.security.keys import load_key
from dafh.settings import ModelSettings
from dafh.stack import Stack, read_stack

DAFH = str(Path(sys.executable).with_name("dafh"))


def run(*words: str, **settings: object) -> None:
    """Run a `dafh` command, with settings by their names."""
    told = {
        f"DAFH_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in settings.items()
    }
    subprocess.run([DAFH, *words], check=True, stdout=subprocess.DEVNULL, env=os.environ | told)


@contextmanager
def running(data_dir: Path, **settings: object) -> Iterator[Stack]:
    """Run a stack for the length of the block; settings reach all its parts."""
    run("up", "--detach", "--port", "0", "--data-dir", str(data_dir), **settings)
    try:
        yield read_stack(data_dir)
    finally:
        run("down", "--data-dir", str(data_dir))


def pids(stack: Stack) -> dict[str, int]:
    """Return the processes of a stack by what they are."""
    return {
        "gateway": stack.gateway.pid,
        "Triton": stack.triton.pid,
        "Milvus": stack.milvus.pid,
    }


def encoder_of(stack: Stack) -> OnnxEncoder:
    """Return the model that a stack serves, in this process and on one thread."""
    return OnnxEncoder(ModelSettings().model_repository, stack.model_version, threads=1)


def coding_of(stack: Stack) -> Coding:
    """Return how the default archive of a stack is coded."""
    keyer = PatientKeyer(load_key(stack.patient_key_file), DEFAULT_TENANT)
    model = encoder_of(stack).model
    return Coding(
        DEFAULT_TENANT, DEFAULT_ARCHIVE, model.hash, model.version, stack.bits, keyer.key_id
    )


def index_of(stack: Stack) -> MilvusIndex:
    """Open the default archive of a stack past its gateway; it is made where there is none."""
    return MilvusIndex.open_or_create(stack.milvus_uri, coding_of(stack), Deadline.after(60))
