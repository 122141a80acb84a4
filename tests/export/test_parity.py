"""Whether a backend may serve is decided by one table, and the published ones do."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dafh.codes import BITS
from dafh.deadline import Deadline
from dafh.encoding.onnx import OnnxEncoder
from dafh.encoding.triton import TritonEncoder
from dafh.errors import InvalidInput
from dafh.imaging.phantom import phantom_images
from dafh.settings import CHECKOUT
from dafh_export.backends import candidates
from dafh_export.images import read_split
from dafh_export.model_file import Precision
from dafh_export.parity import (
    THRESHOLDS,
    Backend,
    Candidate,
    Comparison,
    Hashes,
    Labelled,
    Report,
    compare,
    onnx_backend,
    require_offered,
    rows,
    write_report,
)
from dafh_export.provenance import file_digest
from dafh_export.server import serving

REPOSITORY = CHECKOUT / "model_repository"
MODEL = REPOSITORY / "dafh"
VERSIONS = sorted(int(path.name) for path in MODEL.iterdir() if path.name.isdigit())
CORPUS = CHECKOUT.parent / "shared" / "corpus"

needs_corpus = pytest.mark.skipif(
    not (CORPUS / "manifest.csv").exists(), reason="the corpus is not beside the checkout"
)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> Path:
    return MODEL / str(request.param)


def wrong(change: float) -> Backend:
    """Return the published model with the first image's surest positive output changed."""
    right = onnx_backend(MODEL / "1" / "model.onnx")

    def backend(images: NDArray[np.uint8]) -> Hashes:
        hashes = right(images)
        hashes[64][0, hashes[64][0].argmax()] += change
        return hashes

    return backend


@pytest.fixture(scope="module")
def images() -> Labelled:
    return Labelled(phantom_images(6, 3, 128), ["a", "b"] * 3)


@pytest.mark.parametrize(
    ("name", "backend", "failure"),
    [
        ("torch", onnx_backend(MODEL / "1" / "model.onnx"), ""),
        ("torch", wrong(2e-4), "largest difference: 0.0002"),
        ("onnx-fp16", wrong(2e-4), ""),
        # One of 384 bits.
        ("onnx-fp16", wrong(-2.0), "differing bits per 10 000"),
        ("onnx-fp16", wrong(2.0), ""),
        ("torch", wrong(float("nan")), "largest difference: nan"),
    ],
)
def test_a_backend_is_judged_by_its_row_of_the_table(
    images: Labelled, name: str, backend: Backend, failure: str
) -> None:
    candidate = Candidate(name, backend)
    report = compare(MODEL / "1" / "model.onnx", images, images, iter([candidate]))
    assert failure in " ".join(report.comparisons[0].failures)
    assert report.passed == (not failure)


def test_every_precision_has_its_thresholds() -> None:
    for precision in Precision:
        assert f"tensorrt-{precision}" in THRESHOLDS
        assert precision is Precision.FP32 or f"onnx-{precision}" in THRESHOLDS


def test_a_precision_that_fails_is_not_offered(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for file in ("model.onnx", "parity.json"):
        shutil.copyfile(MODEL / "1" / file, run / file)
    require_offered(run)
    shutil.copyfile(MODEL / "1" / "model.fp16.onnx", run / "model.int8.onnx")
    with pytest.raises(InvalidInput, match=r"Nothing is known of the parity of model\.int8"):
        require_offered(run)
    report = Report.model_validate_json((run / "parity.json").read_bytes())
    failed = Comparison(
        backend="onnx-int8",
        file=file_digest(run / "model.int8.onnx"),
        difference=1.0,
        differing_bits=9,
        least_certain=0.5,
        bits_per_10000={64: 9.0},
        map_change={64: -0.02},
        failures=["change of MAP@10: 0.02, allowed 0.01"],
    )
    write_report(report.model_copy(update={"comparisons": [failed]}), run)
    with pytest.raises(InvalidInput, match=r"int8 is not offered.*0\.02, allowed 0\.01"):
        require_offered(run)
    assert "allowed 0.01" in (run / "parity.md").read_text()


def test_published_precisions_passed_on_the_query_split(version: Path) -> None:
    report = Report.model_validate_json((version / "parity.json").read_bytes())
    measured = {one.backend: one for one in report.comparisons}
    assert report.model_hash == OnnxEncoder(REPOSITORY, int(version.name)).model.hash
    half = measured["onnx-fp16"]
    assert half.file == file_digest(version / "model.fp16.onnx")
    assert max(half.bits_per_10000.values()) <= 5
    assert max(abs(change) for change in half.map_change.values()) <= 0.002
    assert measured["triton-cpu"].difference <= 1e-5
    assert {"torch", "triton-cpu"} <= measured.keys()
    assert report.passed


@needs_corpus
@pytest.mark.stack
def test_the_real_server_repeats_the_whole_query_split(version: Path) -> None:
    number = int(version.name)
    local = OnnxEncoder(REPOSITORY, number, threads=2)
    images = read_split(CORPUS / "manifest.csv", CORPUS, "query", local.model.side).images
    with serving(REPOSITORY, number) as server:
        encoder = TritonEncoder(server.address, number)
        ours = encoder.encode(images, Deadline.after(150)).hashes
        encoder.close()
    theirs = local.encode(images, Deadline.never()).hashes
    worst = max(float(np.abs(ours[bits] - theirs[bits]).max()) for bits in BITS)
    differs = {bits: (ours[bits] > 0) != (theirs[bits] > 0) for bits in BITS}
    count = sum(int(found.sum()) for found in differs.values())
    print(f"version {number}: {len(images)} queries, max |dh| {worst:.2g}, {count} bits differ")  # noqa: T201 - the figure that this test is for
    assert worst <= 1e-5
    for bits, found in differs.items():
        assert np.abs(theirs[bits][found]).max(initial=0.0) < 1e-4


@needs_corpus
@pytest.mark.long
@pytest.mark.stack
@pytest.mark.timeout(1200)
def test_every_published_precision_says_the_same_on_the_corpus(version: Path) -> None:
    side = OnnxEncoder(REPOSITORY, int(version.name)).model.side
    query, database = (
        read_split(CORPUS / "manifest.csv", CORPUS, split, side) for split in ("query", "database")
    )
    with ExitStack() as stack:
        found = candidates(version, stack, triton=True, plan=None)
        report = compare(version / "model.onnx", query, database, found)
    for row in rows(report):
        print(*row, sep=" | ")  # noqa: T201 - the figures that this test is for
    assert {one.backend for one in report.comparisons} >= {"torch", "onnx-fp16", "triton-cpu"}
    assert report.passed
