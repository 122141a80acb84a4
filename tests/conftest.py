"""A running embedded stack for every test that wants one, one per pytest worker."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from dafh.stack import Stack

# What a busy machine needs for one example says nothing about the code.
settings.register_profile("dafh", deadline=None)
settings.load_profile("dafh")

#: `dafh`, as a process that is told to stop when the one that started it is gone, however it went.
DAFH_UNTIL_PARENT_ENDS = (
    sys.executable,
    "-P",
    "-c",
    "from dafh.cli import main; from dafh_local.milvus import die_with_parent;"
    "die_with_parent(); main()",
)


@pytest.fixture(scope="session")
def stack_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run a stack on free ports and yield its data directory (what `--data-dir` takes)."""
    data_dir = tmp_path_factory.mktemp("stack")
    log = data_dir.with_suffix(".log")
    with log.open("wb") as errors:
        up = subprocess.Popen(
            [*DAFH_UNTIL_PARENT_ENDS, "up", "--json", "--port", "0", "--data-dir", str(data_dir)],
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    with up:
        assert up.stdout is not None
        note = b""
        while line := up.stdout.readline():
            note += line
            if line == b"}\n":
                break
        if not note:
            pytest.fail(f"the stack did not start: {log.read_text()}")
        assert json.loads(note)["gateway"]
        try:
            yield data_dir
        finally:
            up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 0, log.read_text()


@pytest.fixture(scope="session")
def stack(stack_data_dir: Path) -> Stack:
    """Return the note of a running stack: real Triton, Milvus Lite and gateway on loopback."""
    return Stack.model_validate_json((stack_data_dir / "stack.json").read_text())
