"""What README tells people to type first works, on fewer images."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dafh.imaging.changed_copies import Change

#: Images that are asked for with each kind of change.
SOURCES = 8


@pytest.mark.stack
def test_the_demonstration_finds_changed_copies_and_draws_an_answer(tmp_path: Path) -> None:
    """Of pydicom's files and phantoms, through servers that it starts and stops itself."""
    done = subprocess.run(
        [
            sys.executable, "-m", "dafh_jobs.demo",
            "--instances", "60", "--sources", str(SOURCES), "--out", tmp_path / "out",
        ],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True, text=True, check=False, timeout=170,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Started triton, milvus, gateway." in done.stdout
    for change in Change:
        (row,) = [line for line in done.stdout.splitlines() if f" {change} " in line]
        assert f" {SOURCES} " in row
    assert (tmp_path / "out" / "answer.png").read_bytes().startswith(b"\x89PNG")
    # Its folder, with keys and data, is gone; Milvus Lite's own log files stay.
    assert list(tmp_path.glob("dafh-demo-*")) == []
