"""Training, gateway and job make the same model input of the same bytes: there is one door."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from dafh.deadline import Deadline
from dafh.encoding.scripted import ScriptedEncoder
from dafh.evaluation.manifest import Entry, load_images
from dafh.imaging.image import Image
from dafh.imaging.limits import DEFAULT_LIMITS
from dafh.imaging.phantom import Phantom
from dafh.imaging.pool import DecoderPool
from dafh.security.keys import create_key
from dafh_gateway.backend import Backend
from dafh_gateway.settings import GatewaySettings
from dafh_jobs.decoding import Decoding
from dafh_jobs.journal import Journal
from dafh_jobs.pace import Pace, Stage
from dafh_jobs.sources import entries

#: Of the first phantoms, at the side of the scripted encoder: frame 1, which training takes.
FRAME = 1
MANY = 12
#: SHA-256 over what training makes of them. Raise IMAGING_VERSION together with a change here.
GOLDEN = "2e5d30b0966ecc048c2a033460d8342d6d08fd59990fafd7075bc7fec5611ca5"

SCRIPT = """
import hashlib, sys
from pathlib import Path
from dafh.imaging.decode import decode
for name in sys.argv[2:]:
    pixels = decode(Path(name).read_bytes(), side=int(sys.argv[1])).pixels
    print(hashlib.sha256(pixels.tobytes()).hexdigest())
"""


def digest(pixels: bytes) -> str:
    return hashlib.sha256(pixels).hexdigest()


def test_training_gateway_and_job_see_the_same_bytes(sample: list[Phantom], tmp_path: Path) -> None:
    model = ScriptedEncoder().model
    files = []
    for number, phantom in enumerate(sample[:MANY]):
        files.append(tmp_path / f"{number}.dcm")
        files[-1].write_bytes(phantom.data)

    entries = [Entry(file, "any", "train", "any") for file in files]
    training = [digest(image.tobytes()) for image in load_images(entries, model.side)]

    key = tmp_path / "key"
    create_key(key)
    backend = Backend(GatewaySettings(patient_key_file=key, decode_workers=1))
    try:
        soon = Deadline.after(60)
        gateway = [
            digest(backend.decode(file.read_bytes(), FRAME, model, deadline=soon).pixels.tobytes())
            for file in files
        ]
    finally:
        backend.close()

    jobs = by_a_job(files, model.side, tmp_path)
    # A job takes the representative frame; phantoms with one frame have no other.
    single = [place for place, image in enumerate(jobs) if image.metadata.frames == 1]

    assert len(single) >= MANY // 2
    assert digest("".join(training).encode()) == GOLDEN
    assert training == gateway
    assert [training[place] for place in single] == [
        digest(jobs[place].pixels.tobytes()) for place in single
    ]


def by_a_job(files: list[Path], side: int, folder: Path) -> list[Image]:
    journal, pace = Journal(folder / "journal", b"k" * 32, ""), Pace(dict.fromkeys(Stage, 1))
    images: list[Image] = []
    with DecoderPool(workers=1) as decoders:
        decoding = Decoding(decoders, journal, side, workers=1, most=2**24, pace=pace)
        for entry in entries(map(str, files), DEFAULT_LIMITS):
            decoding.begin(entry, journal.record_of(entry))
            while decoding.reading:
                message = decoding.message()
                images += [message.item.image] if message and message.item else []
        decoding.close()
    journal.close()
    return images


def test_a_fresh_process_sees_the_same_bytes(sample: list[Phantom], tmp_path: Path) -> None:
    files = []
    for number, phantom in enumerate(sample[:MANY]):
        files.append(tmp_path / f"{number}.dcm")
        files[-1].write_bytes(phantom.data)
    runs = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT, "64", *files],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout.split()
        for seed in ("1", "2")
    ]
    entries = [Entry(file, "any", "train", "any") for file in files]
    here = [digest(image.tobytes()) for image in load_images(entries, 64)]
    assert runs == [here, here]
