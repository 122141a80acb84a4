"""Whether a model says the same wherever and in whatever precision it runs; ``parity.json``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from dafh.codes import BITS
from dafh.encoding.onnx import MODEL_FILE, open_session
from dafh.encoding.port import IMAGE, hash_tensor
from dafh.errors import InvalidInput, Reason
from dafh.evaluation.metrics import code_distances, macro_map
from dafh.writing import write_atomically
from dafh_export.model_file import Precision, load_model, read_description
from dafh_export.provenance import file_digest

PARITY_FILE, PARITY_TABLE = "parity.json", "parity.md"
BATCH = 32
#: bits -> hash outputs, float32 ``[N, bits]``.
Hashes = dict[int, NDArray[np.float32]]
#: uint8 ``[N, 1, S, S]`` -> `Hashes`.
Backend = Callable[[NDArray[np.uint8]], Hashes]


@dataclass(frozen=True, slots=True)
class Threshold:
    """How far a backend may be from the exported fp32 graph on ONNX Runtime."""

    #: Largest difference of a hash output.
    difference: float = math.inf
    #: A bit may differ only where the reference's hash output is nearer to zero than this.
    certain: float = math.inf
    #: Differing bits per 10 000, at the worst code length.
    bits: float = math.inf
    #: Change of macro MAP@10 in either direction, at the worst code length.
    map_change: float = math.inf


SAME = Threshold(difference=1e-4, certain=1e-4)
HALF = Threshold(bits=5, map_change=0.002)
EIGHT = Threshold(map_change=0.01)
#: The one table of thresholds.
THRESHOLDS: dict[str, Threshold] = {
    "torch": SAME,
    "triton-cpu": Threshold(difference=1e-5, certain=1e-4),
    "onnx-fp16": HALF,
    "onnx-int8": EIGHT,
    "onnx-fp8": EIGHT,
    "tensorrt-fp32": HALF,
    "tensorrt-fp16": HALF,
    "tensorrt-int8": EIGHT,
    "tensorrt-fp8": EIGHT,
}


class Comparison(BaseModel):
    """One backend against the reference."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: str
    #: SHA-256 of the file it ran; empty where it was a server or a network.
    file: str = ""
    #: Largest difference of a hash output of a query, any length.
    difference: float
    #: Differing bits of the queries' codes, all lengths together.
    differing_bits: int
    #: How far from zero the reference was, at most, where a bit differed.
    least_certain: float
    #: By code length: differing bits per 10 000, and change of macro MAP@10.
    bits_per_10000: dict[int, float]
    map_change: dict[int, float]
    #: What is beyond its threshold, in words.
    failures: list[str] = []

    @property
    def passed(self) -> bool:
        """Whether the backend may serve."""
        return not self.failures


class Report(BaseModel):
    """Contents of ``parity.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model_hash: str
    queries: int
    database: int
    #: Macro MAP@10 of the reference by code length.
    map_at_10: dict[int, float]
    comparisons: list[Comparison]

    @property
    def passed(self) -> bool:
        """Whether every backend that was compared may serve."""
        return all(comparison.passed for comparison in self.comparisons)


@dataclass(frozen=True, slots=True)
class Labelled:
    """Images of known class."""

    #: uint8 ``[N, 1, S, S]``.
    images: NDArray[np.uint8]
    #: ``N`` class names.
    classes: Sequence[str]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend to compare."""

    #: Its row in `THRESHOLDS`.
    name: str
    run: Backend
    file: str = ""


def compare(
    model_file: Path, query: Labelled, database: Labelled, candidates: Iterator[Candidate]
) -> Report:
    """Compare backends with the exported graph on the same images.

    Parameters
    ----------
    model_file
        The exported, fp32, graph.
    query, database
        Each backend codes both, and MAP@10 is that of its own codes.
    candidates
        What to compare; each is let go of before the next one is asked for.
    """
    reference = onnx_backend(model_file)
    own = {side: reference(part.images) for side, part in (("q", query), ("d", database))}
    quality = _quality(own["q"], query, own["d"], database)
    comparisons = []
    for candidate in candidates:
        asked, stored = candidate.run(query.images), candidate.run(database.images)
        found = _quality(asked, query, stored, database)
        comparisons.append(_judge(candidate, own["q"], asked, quality, found))
    return Report(
        model_hash=read_description(load_model(model_file)).hash,
        queries=len(query.images),
        database=len(database.images),
        map_at_10=quality,
        comparisons=comparisons,
    )


def _quality(
    asked: Hashes, query: Labelled, stored: Hashes, database: Labelled
) -> dict[int, float]:
    return {
        bits: macro_map(code_distances(asked[bits], stored[bits]), query.classes, database.classes)
        for bits in BITS
    }


def _judge(
    candidate: Candidate,
    own: Hashes,
    asked: Hashes,
    quality: dict[int, float],
    found: dict[int, float],
) -> Comparison:
    differs = {bits: (own[bits] > 0) != (asked[bits] > 0) for bits in BITS}
    where = np.concatenate([np.abs(own[bits])[differs[bits]] for bits in BITS])
    comparison = Comparison(
        backend=candidate.name,
        file=candidate.file,
        # NaN stays NaN, and fails below.
        difference=float(np.max([np.abs(own[bits] - asked[bits]).max() for bits in BITS])),
        differing_bits=len(where),
        least_certain=float(where.max()) if len(where) else 0.0,
        bits_per_10000={bits: float(1e4 * differs[bits].mean()) for bits in BITS},
        map_change={bits: found[bits] - quality[bits] for bits in BITS},
    )
    limit = THRESHOLDS[candidate.name]
    measured = {
        "largest difference": (comparison.difference, limit.difference),
        "a bit differs at": (comparison.least_certain, limit.certain),
        "differing bits per 10 000": (max(comparison.bits_per_10000.values()), limit.bits),
        "change of MAP@10": (
            max(abs(change) for change in comparison.map_change.values()),
            limit.map_change,
        ),
    }
    failures = [
        f"{what}: {value:.3g}, allowed {most:.3g}"
        for what, (value, most) in measured.items()
        if not value <= most
    ]
    return comparison.model_copy(update={"failures": failures})


def onnx_backend(path: Path, threads: int = 2) -> Backend:
    """Return a model file on ONNX Runtime's CPU provider."""
    session = open_session(path, threads)
    names = [hash_tensor(bits) for bits in BITS]
    return batched(lambda images: session.run(names, {IMAGE: images}))


def batched(run: Callable[[NDArray[np.uint8]], Sequence[NDArray[np.float32]]]) -> Backend:
    """Return a backend from a function that gives a batch's hash outputs in the order of `BITS`."""

    def backend(images: NDArray[np.uint8]) -> Hashes:
        parts = [run(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
        columns = zip(*parts, strict=True)
        return {bits: np.concatenate(column) for bits, column in zip(BITS, columns, strict=True)}

    return backend


COLUMNS = ("backend", "max |Δh|", "bits that differ", "of them at |h| ≤", "Δ MAP@10", "verdict")


def rows(report: Report) -> list[tuple[str, ...]]:
    """Return a report as the lines of a table with `COLUMNS`; figures of the worst length."""
    return [
        (
            one.backend,
            f"{one.difference:.2g}",
            f"{one.differing_bits} ({max(one.bits_per_10000.values()):.2f} per 10 000)",
            f"{one.least_certain:.2g}" if one.differing_bits else "-",
            f"{max(one.map_change.values(), key=abs):+.4f}",
            "; ".join(one.failures) or "the same",
        )
        for one in report.comparisons
    ]


def write_report(report: Report, out: Path) -> None:
    """Write ``parity.json``, which decides, and ``parity.md``, for people."""
    out.mkdir(parents=True, exist_ok=True)
    lines = [
        f"# Parity of model {report.model_hash[:12]}",
        "",
        f"{report.queries} queries, {report.database} images in the database; figures of the worst "
        "code length, against the exported fp32 graph on ONNX Runtime.",
        "",
        *(f"| {' | '.join(row)} |" for row in (COLUMNS, ["---"] * len(COLUMNS), *rows(report))),
    ]
    write_atomically(out / PARITY_TABLE, ("\n".join(lines) + "\n").encode())
    write_atomically(out / PARITY_FILE, f"{report.model_dump_json(indent=2)}\n".encode())


def require_offered(run: Path) -> None:
    """Refuse a run that holds a precision which is not known to say the same.

    Raises
    ------
    InvalidInput
        ``parity.json`` says that it fails, or nothing of this very file.
    """
    digest = read_description(load_model(run / MODEL_FILE)).hash
    for precision in Precision:
        path = run / precision.file
        if precision is Precision.FP32 or not path.is_file():
            continue
        wanted = (f"onnx-{precision}", file_digest(path))
        found = [one for one in _compared(run, digest) if (one.backend, one.file) == wanted]
        if not found:
            raise InvalidInput(
                Reason.ARGUMENT_INVALID,
                f"Nothing is known of the parity of {precision.file}.",
                remedy="Measure it with `dafh export verify`.",
            )
        if not found[0].passed:
            raise InvalidInput(
                Reason.ARGUMENT_INVALID,
                f"{precision} is not offered for this model: {'; '.join(found[0].failures)}.",
                remedy=f"Remove {precision.file} from the run.",
            )


def _compared(run: Path, model_hash: str) -> list[Comparison]:
    try:
        report = Report.model_validate_json((run / PARITY_FILE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return []
    return report.comparisons if report.model_hash == model_hash else []
