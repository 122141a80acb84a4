"""The benchmark of imaging runs, covers what is decoded, and its page is as it was written."""

from __future__ import annotations

from pathlib import Path

from bench.imaging import OUT, STEPS, Results, main, page
from dafh.imaging.codecs import CODECS, NATIVE

from .encoders import ENCODERS


def test_a_short_run_measures_every_transfer_syntax_that_can_be_written(tmp_path: Path) -> None:
    main(["--rounds", "2", "--out", str(tmp_path)])
    results = Results.of((tmp_path / "imaging.json").read_text())
    measured = {rate.transfer_syntax for rate in results.rates}
    assert measured == NATIVE | ENCODERS.keys()
    assert measured <= NATIVE | CODECS.keys()
    # A step that no call went through has another name by now.
    steps = {step.name: step.ms for step in results.waterfall}
    assert all(steps[name] > 0 for name, *_ in STEPS)


def test_the_page_in_the_repository_is_the_one_that_was_measured() -> None:
    assert (OUT / "imaging.md").read_text() == page(Results.of((OUT / "imaging.json").read_text()))
