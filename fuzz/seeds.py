"""What a fuzzer starts from: small files of every kind, real ones where there are some."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pydicom.data

from dafh.imaging.phantom import phantoms

#: Largest input, bytes: beyond it lies more of the same pixels.
MAX_LENGTH = 2**16
#: Files from the field; pydicom brings some along.
REAL = (
    Path(__file__).resolve().parents[2] / "shared" / "dicom",
    Path(pydicom.data.__file__).parent / "test_files",
)
PHANTOMS = 40
SEED = 3


def seeds() -> Iterator[bytes]:
    """Yield files of at most `MAX_LENGTH` bytes."""
    for folder in REAL:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.stat().st_size <= MAX_LENGTH:
                yield file.read_bytes()
    for phantom in phantoms(PHANTOMS, SEED):
        if len(phantom.data) <= MAX_LENGTH:
            yield phantom.data


def write_seeds(folder: Path) -> int:
    """Write the seeds, named by their content; return how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    names = set()
    for data in seeds():
        name = hashlib.sha256(data).hexdigest()[:32]
        (folder / name).write_bytes(data)
        names.add(name)
    return len(names)
