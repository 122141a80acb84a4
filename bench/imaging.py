"""What decoding costs: ``python -m bench.imaging`` writes docs/performance/imaging.md and .json.

One thread, in this process unless it says "worker": what one decoder of the pool does. Times are
compared within one run only, by turns, because machines differ and are shared.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dafh.deadline import Deadline
from dafh.imaging import decode as door
from dafh.imaging.codecs import syntax_name
from dafh.imaging.decode import decode
from dafh.imaging.pixels import Stored
from dafh.imaging.pool import DecoderPool
from tests.imaging.encoders import ENCODERS, MOST_BITS, Values, write_compressed
from tests.imaging.instances import write_instance

ROWS = 512
#: Side of the model's input.
SIDE = 128
WARM_UP = 20
#: What "as fast as" means: at most so many times as long as pydicom and OpenCV take.
AIM = 1.3
#: Milliseconds that a worker process may add to a call, at p50.
AIM_ADDED = 1.0
OUT = Path(__file__).resolve().parent.parent / "docs" / "performance"
LIBRARIES = ("numpy", "opencv-python-headless", "imagecodecs", "pydicom")
#: The steps of `decode` in order, by the names under which it calls them.
STEPS = (
    ("parse the file", door, "read_instance"),
    ("check the pixel format", door, "pixel_format"),
    ("public metadata", door, "public_metadata"),
    ("stored values", door, "_stored_values"),
    ("values to grey", door, "monochrome_to_grey"),
    ("crop", door, "crop_padding"),
    ("resize", door, "letterbox"),
    ("hash of the content", Stored, "sha256"),
)


@dataclass(frozen=True, slots=True)
class Compared:
    """Two ways by turns; milliseconds."""

    #: What ours is for.
    purpose: str
    ours_ms: float
    theirs_ms: float
    #: Median of the ratios of neighbours, and the middle half of them.
    ratio: float
    ratio_low: float
    ratio_high: float


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast one transfer syntax is decoded, in time of a processor."""

    transfer_syntax: str
    name: str
    bits: int
    bytes: int
    ms: float
    images_per_second: float


@dataclass(frozen=True, slots=True)
class Overhead:
    """What a worker process adds to a call; milliseconds."""

    file: str
    in_process_p50_ms: float
    worker_p50_ms: float
    added_p50_ms: float
    in_process_p99_ms: float
    worker_p99_ms: float


@dataclass(frozen=True, slots=True)
class Step:
    """Where the time of one image goes."""

    name: str
    ms: float


@dataclass(frozen=True, slots=True)
class Results:
    """One run; what ``imaging.json`` holds."""

    date: str
    machine: str
    versions: dict[str, str]
    rounds: int
    against_pydicom: list[Compared]
    waterfall: list[Step]
    overhead: list[Overhead]
    rates: list[Rate]

    @classmethod
    def of(cls, text: str) -> Results:
        """Read the JSON."""
        told = json.loads(text)
        for name, kind in LISTS.items():
            told[name] = [kind(**row) for row in told[name]]
        return cls(**told)


#: Field of `Results` -> what its rows are.
LISTS: dict[str, Callable[..., object]] = {
    "against_pydicom": Compared,
    "waterfall": Step,
    "overhead": Overhead,
    "rates": Rate,
}


def ct_values(bits: int) -> Values:
    """Return a slice of a body in air with the noise of a scanner, ``[512, 512]``."""
    chance = np.random.default_rng(1)
    y, x = np.mgrid[-1 : 1 : ROWS * 1j, -1 : 1 : ROWS * 1j]
    units = np.where(x**2 / 0.7 + y**2 / 0.45 < 1, 40.0, -1000.0)
    units[(x - 0.35) ** 2 + y**2 < 0.06] = -850
    units[(x + 0.35) ** 2 + y**2 < 0.06] = -850
    units[x**2 + (y - 0.45) ** 2 < 0.01] = 700
    units += chance.normal(0, 15, units.shape)
    stored = np.clip(np.rint(units) + 1024, 0, 4095).astype(np.uint16)
    values: Values = stored if bits > 8 else (stored >> 12 - bits).astype(np.uint8)
    return values


def ct_elements(bits: int) -> dict[str, Any]:
    """Return what a scanner writes beside the pixels: readers have to step over it."""
    return {
        **HEADER,
        "Modality": "CT",
        "RescaleSlope": str(2 ** (12 - bits)),
        "RescaleIntercept": "-1024",
        "WindowCenter": "40",
        "WindowWidth": "400",
        "PixelSpacing": [0.8, 0.8],
    }


HEADER: dict[str, Any] = {
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "StudyDate": "20240102", "SeriesDate": "20240102", "ContentDate": "20240102",
    "StudyTime": "101010", "SeriesTime": "101011", "ContentTime": "101012",
    "AccessionNumber": "1", "Manufacturer": "BENCH", "InstitutionName": "NOWHERE",
    "StudyDescription": "SYNTHETIC", "SeriesDescription": "SYNTHETIC 5.0",
    "ManufacturerModelName": "BENCH", "PatientName": "BENCH^NOBODY", "PatientBirthDate": "",
    "PatientSex": "O", "PatientAge": "050Y", "BodyPartExamined": "ABDOMEN",
    "SliceThickness": "5", "KVP": "120", "DataCollectionDiameter": "500",
    "SoftwareVersions": "1", "ProtocolName": "SYNTHETIC", "ReconstructionDiameter": "400",
    "GantryDetectorTilt": "0", "TableHeight": "100", "RotationDirection": "CW",
    "ExposureTime": "500", "XRayTubeCurrent": "200", "Exposure": "100", "FilterType": "BODY",
    "GeneratorPower": "40", "FocalSpots": "1.2", "ConvolutionKernel": "B30",
    "PatientPosition": "HFS", "StudyID": "1", "SeriesNumber": "1", "AcquisitionNumber": "1",
    "InstanceNumber": "1", "ImagePositionPatient": [0, 0, 0],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "FrameOfReferenceUID": "2.25.4",
    "PositionReferenceIndicator": "", "SliceLocation": "0",
}  # fmt: skip


def plain_ct() -> bytes:
    """Return a CT slice, 512 x 512, 12 of 16 bit, uncompressed."""
    return write_instance(ct_values(12), BitsStored=12, HighBit=11, **ct_elements(12))


def seconds(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return how long a call takes."""
    started = clock()
    call()
    return clock() - started


def against_pydicom(rounds: int) -> list[Compared]:
    """Compare with what a program without DAFH would do first: `pixel_array` and a resize."""
    data = plain_ct()

    def theirs() -> object:
        values = dcmread(io.BytesIO(data)).pixel_array
        return cv2.resize(values, (SIDE, SIDE), interpolation=cv2.INTER_AREA)

    made = []
    for purpose, content_hash in (("a query", False), ("a case, with its content hash", True)):
        ours = partial(decode, data, side=SIDE, content_hash=content_hash)
        for call in (ours, theirs) * WARM_UP:
            call()
        clock = time.process_time
        pairs = [(seconds(ours, clock), seconds(theirs, clock)) for _ in range(rounds)]
        ratios = sorted(one / other for one, other in pairs)
        low, middle, high = statistics.quantiles(ratios, n=4)
        mine, other = (1000 * statistics.median(one) for one in zip(*pairs, strict=True))
        figures = (round(number, 3) for number in (mine, other, middle, low, high))
        made.append(Compared(purpose, *figures))
    return made


@contextmanager
def timed_steps(spent: dict[str, float]) -> Iterator[None]:
    """Add up the seconds that each of `STEPS` takes, by its name."""
    originals = [(owner, attribute, getattr(owner, attribute)) for _, owner, attribute in STEPS]

    def timed(name: str, step: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object, **options: object) -> object:
            started = time.perf_counter()
            result = step(*arguments, **options)
            spent[name] += time.perf_counter() - started
            return result

        return run

    for (name, *_), (owner, attribute, step) in zip(STEPS, originals, strict=True):
        setattr(owner, attribute, timed(name, step))
    try:
        yield
    finally:
        for owner, attribute, step in originals:
            setattr(owner, attribute, step)


def waterfall(rounds: int) -> list[Step]:
    """Return where the time of one CT slice goes, medians; the last is what no step covers."""
    data = plain_ct()
    runs: list[dict[str, float]] = []
    spent = {name: 0.0 for name, *_ in STEPS}
    with timed_steps(spent):
        for _ in range(WARM_UP + rounds):
            spent.update(dict.fromkeys(spent, 0.0))
            whole = seconds(lambda: decode(data, side=SIDE))
            runs.append({**spent, "all": whole, "the rest": whole - sum(spent.values())})
    names = [*spent, "the rest", "all"]
    medians = {name: statistics.median(run[name] for run in runs[WARM_UP:]) for name in names}
    return [Step(name, round(1000 * medians[name], 3)) for name in names]


def overhead(rounds: int) -> list[Overhead]:
    """Compare a worker with this process, by turns."""
    small = write_instance()
    made = []
    with DecoderPool(workers=1) as pool:
        for name, data in (("16 x 16", small), ("CT 512 x 512", plain_ct())):
            here = partial(decode, data, side=SIDE)
            there = partial(pool.decode, data, side=SIDE, deadline=Deadline.after(3600))
            for call in (here, there) * WARM_UP:
                call()
            pairs = [(seconds(here), seconds(there)) for _ in range(rounds)]
            (in_50, in_99), (out_50, out_99) = (
                (1000 * statistics.median(one), 1000 * statistics.quantiles(one, n=100)[98])
                for one in zip(*pairs, strict=True)
            )
            figures = (in_50, out_50, out_50 - in_50, in_99, out_99)
            made.append(Overhead(name, *(round(number, 3) for number in figures)))
    return made


def rates(rounds: int) -> list[Rate]:
    """Return how fast each transfer syntax is decoded: the same CT slice in all of them."""
    made = []
    for syntax, (bits, data) in slices():
        call = partial(decode, data, side=SIDE)
        call()
        spent = statistics.median(seconds(call, time.process_time) for _ in range(rounds))
        name = syntax_name(syntax)
        made.append(
            Rate(syntax, name, bits, len(data), round(1000 * spent, 3), round(1 / spent, 1))
        )
    return made


def slices() -> Iterator[tuple[str, tuple[int, bytes]]]:
    """Yield transfer syntax, bits of a value, and the CT slice in it."""
    native = {"BitsStored": 12, "HighBit": 11, **ct_elements(12)}
    for native_syntax in (
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
    ):
        values = ct_values(12)
        values = values.byteswap() if native_syntax == ExplicitVRBigEndian else values
        yield native_syntax, (12, write_instance(values, syntax=native_syntax, **native))
    for syntax in ENCODERS:
        bits = min(12, MOST_BITS.get(syntax, 12))
        yield syntax, (bits, write_compressed([ct_values(bits)], syntax, bits, ct_elements(bits)))


def table(*rows: tuple[object, ...]) -> str:
    """Return rows as a Markdown table; the first is its head."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


#: What stands on the page between the figures.
CONDITIONS = """
Medians of {rounds} rounds, of each transfer syntax fewer. One thread, as in a worker process. Time
of the processor and ratios of neighbours bear other load on the machine; milliseconds are of this
machine and this run.
"""
THEIRS = f"""
A CT slice, 512 x 512, 12 of 16 bit, uncompressed, with the elements that scanners write, to
{SIDE} x {SIDE}, in time of the processor. Theirs is `dcmread(...).pixel_array` and `cv2.resize`
(INTER_AREA); ours also applies rescale and window, crops, letterboxes, keeps the limits and makes
the metadata. Only a case that is stored needs its content hash, a SHA-256 over 512 KiB.
"""
SYNTAXES = """
The same slice in each, with its content hash, in time of the processor. The four that no encoder
here writes (1.2.840.10008.1.2.4.53, .92, .93 and .202) have the decoders of .55, .90, .91 and .201.
"""


def page(results: Results) -> str:
    """Return a run as Markdown."""
    software = ", ".join(f"{name} {number}" for name, number in results.versions.items())
    ratio = results.against_pydicom[0].ratio
    added = max(row.added_p50_ms for row in results.overhead)
    parts = [
        "# What decoding costs",
        f"Written by `python -m bench.imaging` (`make bench`) on {results.date}; the same as JSON "
        f"is in `imaging.json` beside it.\n{results.machine}; {software}.",
        CONDITIONS.format(rounds=results.rounds),
        "## Against pydicom and OpenCV",
        THEIRS,
        table(
            ("ours is for", "DAFH, ms", "pydicom + OpenCV, ms", "ratio", "middle half"),
            *(
                (row.purpose, row.ours_ms, row.theirs_ms, row.ratio,
                 f"{row.ratio_low} to {row.ratio_high}")
                for row in results.against_pydicom
            ),
        ),
        f"The aim, {AIM} for a query, is {'met' if ratio <= AIM else 'missed'}.",
        "## Where the time goes",
        table(("step", "ms"), *((step.name, step.ms) for step in results.waterfall)),
        "## What a worker process adds",
        table(
            ("file", "in process p50, ms", "worker p50, ms", "added p50, ms",
             "in process p99, ms", "worker p99, ms"),
            *(
                (row.file, row.in_process_p50_ms, row.worker_p50_ms, row.added_p50_ms,
                 row.in_process_p99_ms, row.worker_p99_ms)
                for row in results.overhead
            ),
        ),
        f"The aim, {AIM_ADDED:g} ms at p50, is {'met' if added <= AIM_ADDED else 'missed'}.",
        "## Transfer syntaxes",
        SYNTAXES,
        table(
            ("transfer syntax", "bit", "bytes", "ms", "images per second and core"),
            *(
                (f"{row.name} ({row.transfer_syntax})", row.bits, row.bytes, row.ms,
                 row.images_per_second)
                for row in results.rates
            ),
        ),
    ]  # fmt: skip
    return "\n\n".join(part.strip() for part in parts) + "\n"


def processor() -> str:
    """Return what the processor calls itself (proc(5), cpuinfo)."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def main(words: list[str] | None = None) -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(prog="python -m bench.imaging", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300, help="how often each is measured")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the page and the JSON")
    arguments = parser.parse_args(words)
    rounds = arguments.rounds
    threads = cv2.getNumThreads()
    # As in a worker: one processor each.
    cv2.setNumThreads(1)
    results = Results(
        date=datetime.now(UTC).date().isoformat(),
        machine=f"{processor()}, {os.cpu_count()} processors",
        versions={"Python": platform.python_version(), **{one: version(one) for one in LIBRARIES}},
        rounds=rounds,
        against_pydicom=against_pydicom(rounds),
        waterfall=waterfall(rounds),
        overhead=overhead(rounds),
        rates=rates(max(2, rounds // 10)),
    )
    cv2.setNumThreads(threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "imaging.json").write_text(json.dumps(asdict(results), indent=2) + "\n")
    text = page(results)
    (arguments.out / "imaging.md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
