"""What a fuzzer starts from: small files of every kind, real ones where there are some."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom.data

from dafh.imaging.phantom import phantoms
from fuzz.targets import CODECS, FORMATS
from tests.imaging.encoders import ENCODERS, MOST_BITS, encoded, picture

#: Largest input, bytes: beyond it lies more of the same pixels.
MAX_LENGTH = 2**16
#: Files from the field; pydicom brings some along.
REAL = (
    Path(__file__).resolve().parents[2] / "shared" / "dicom",
    Path(pydicom.data.__file__).parent / "test_files",
)
PHANTOMS = 40
SEED = 3


def files() -> Iterator[bytes]:
    """Yield files of at most `MAX_LENGTH` bytes."""
    for folder in REAL:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.stat().st_size <= MAX_LENGTH:
                yield file.read_bytes()
    for phantom in phantoms(PHANTOMS, SEED):
        if len(phantom.data) <= MAX_LENGTH:
            yield phantom.data


def streams() -> Iterator[bytes]:
    """Yield a stream in each transfer syntax and format that there is an encoder for."""
    for number, codec in enumerate(CODECS):
        encoder = codec.transfer_syntax
        for place, form in enumerate(FORMATS):
            bits = min(form.stored, MOST_BITS.get(encoder, 16))
            if encoder in ENCODERS and bits > 1:
                values = picture(form.rows, form.columns, bits, samples=form.samples)
                wide = values.astype(np.uint8 if bits <= 8 else np.uint16)
                yield bytes((number, place)) + encoded(wide, encoder, bits)


SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "decode": files,
    "reader": files,
    "codecs": streams,
}


def write_seeds(target: str, folder: Path) -> int:
    """Write the seeds of a target, named by their content; return how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    names = set()
    for data in SEEDS[target]():
        name = hashlib.sha256(data).hexdigest()[:32]
        (folder / name).write_bytes(data)
        names.add(name)
    return len(names)
