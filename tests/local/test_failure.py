"""A part that does not start is explained from its log, in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from dafh.errors import Reason
from dafh_local.failure import explain, set_aside
from dafh_local.parts import MILVUS, TRITON
from dafh_local.plan import log_file


@pytest.mark.parametrize(
    ("text", "reason", "words"),
    [
        ("open: No space left on device", Reason.DISK_FULL, "is full"),
        (
            "tritonserver: error while loading shared libraries: libx.so.1: cannot open",
            Reason.LIBRARY_MISSING,
            "the shared library libx.so.1 is missing",
        ),
        ("bind: Address already in use", Reason.PORT_IN_USE, "--triton-port"),
        ("first\nTraceback\nSomething: broke\n\n", Reason.START_FAILED, "Something: broke"),
        ("", Reason.START_FAILED, "Triton ended at once."),
    ],
)
def test_last_words_of_a_part_tell_why(
    tmp_path: Path, text: str, reason: Reason, words: str
) -> None:
    log = log_file(tmp_path, TRITON.name)
    log.parent.mkdir()
    log.write_text(text)
    error = explain(TRITON, tmp_path, "ended at once")
    assert error.reason is reason
    assert words in str(error)
    assert "\n" not in str(error)


def test_part_without_a_log_is_explained_too(tmp_path: Path) -> None:
    assert "Milvus did not answer" in str(explain(MILVUS, tmp_path, "did not answer within 9 s"))


def test_log_of_the_run_before_is_kept_apart(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    set_aside(log)
    for text in ("first", "second"):
        log.write_text(text)
        set_aside(log)
    assert not log.exists()
    assert (tmp_path / "part.log.old").read_text() == "second"


def test_full_disk_is_told_though_the_log_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dafh_local.failure.FULL_BYTES", 2**62)
    assert explain(TRITON, tmp_path, "ended at once").reason is Reason.DISK_FULL
