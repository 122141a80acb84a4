"""Files from the field: what docs/dicom-conformance.md says of each is what happens."""

from __future__ import annotations

import os
from pathlib import Path

import pydicom.data
import pytest

from dafh.errors import Reason
from dafh.imaging.pool import DecoderPool

from .conformance.__main__ import PAGE
from .conformance.compared import DCMTK, FORMULA, compare
from .conformance.explanations import DIFFERENT, FAILING, REFUSED
from .conformance.outcomes import POLICY, SHARED, Outcome, decoded, outcomes
from .conformance.page import outcome_sections, reference_sections
from .conformance.references import missing_tools
from .processes import children

BUNDLED = Path(pydicom.data.__file__).parent / "test_files"
#: What a file must never give: it names a defect of ours, or is the end of a worker.
OURS = {Reason.DECODER_CRASHED, Reason.DECODE_TIMEOUT, Reason.INTERNAL}
#: Share of the files that a reference shows and that must look the same.
AGREEING = 0.95

needs_files = pytest.mark.skipif(
    not SHARED.exists(), reason="the shared DICOM files are not beside this checkout"
)
needs_tools = pytest.mark.skipif(
    bool(missing_tools()),
    reason=f"not installed (Debian: dcmtk, libgdcm-tools): {', '.join(missing_tools())}",
)


@pytest.fixture(scope="module")
def judged() -> list[Outcome]:
    return outcomes()


@needs_files
def test_no_file_crashes_or_hangs_and_no_worker_is_left(judged: list[Outcome]) -> None:
    assert len(judged) == 212
    assert {one.reason for one in judged} & OURS == set()
    assert children(os.getpid()) == []


@needs_files
def test_every_refusal_of_a_sound_file_is_a_policy(judged: list[Outcome]) -> None:
    refused = {one.listed.file for one in judged if one.listed.marked_ok and one.refusal}
    assert refused == set(REFUSED)


@needs_files
def test_every_file_that_others_do_not_decode_is_explained(judged: list[Outcome]) -> None:
    failing = {one.listed.file for one in judged if one.has_pixels and not one.listed.marked_ok}
    assert failing == set(FAILING)


@needs_files
def test_the_page_tells_the_outcomes(judged: list[Outcome]) -> None:
    assert outcome_sections(judged) in PAGE.read_text()


@pytest.mark.long
@needs_files
@needs_tools
def test_the_page_tells_how_far_references_agree(judged: list[Outcome]) -> None:
    compared = list(compare(judged))
    assert reference_sections(compared) in PAGE.read_text()
    assert {one.file for one in compared if not one.agrees} == set(DIFFERENT)
    for reference in (DCMTK, FORMULA):
        shown = [one for one in compared if one.reference == reference and one.shown]
        assert len(shown) > 80
        assert sum(one.agrees for one in shown) >= AGREEING * len(shown)


def test_every_file_that_pydicom_brings_gives_an_image_or_a_refusal() -> None:
    files = [path for path in sorted(BUNDLED.rglob("*")) if path.is_file()]
    with DecoderPool(workers=1, policy=POLICY) as pool:
        given = [decoded(pool, path.read_bytes()) for path in files]
    reasons = [refusal.reason if refusal else None for _, refusal in given]
    assert set(reasons) & OURS == set()
    assert reasons.count(None) >= 70
