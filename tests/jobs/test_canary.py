"""Names in files, folders and file names are in nothing that a job says, logs or stores."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dafh.stack import Stack
from tests.imaging.canaries import Canaries, encapsulated, jpeg, planted, png

pytestmark = pytest.mark.stack

DAFH = str(Path(sys.executable).with_name("dafh"))
#: Exit codes of `encode` and `retrieve` whose file was refused.
REFUSED = (1, 3)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of images and others, with a name wherever one can be."""
    canaries = Canaries()
    folder = tmp_path / canaries.next().decode() / canaries.next().decode()
    folder.mkdir(parents=True)
    contents = {
        "whole": planted(canaries),
        "cut": planted(canaries)[:9999],
        "text": canaries.next() * 9,
        "png": png(canaries),
        "jpeg": jpeg(canaries),
        "syntax": planted(canaries, syntax=canaries.next(), pixels=encapsulated(b"")),
    }
    for kind, data in contents.items():
        (folder / f"{canaries.next().decode()} {kind}").write_bytes(data)
    return tmp_path


def said(*words: str | Path) -> tuple[subprocess.CompletedProcess[str], str]:
    answer = subprocess.run(
        [DAFH, *map(str, words)], capture_output=True, text=True, timeout=120, check=False
    )
    assert "Traceback" not in answer.stderr
    return answer, answer.stdout + answer.stderr


def test_indexing_says_and_stores_no_name(source: Path, stack_data_dir: Path) -> None:
    answer, heard = said("index", source, "--data-dir", stack_data_dir)
    assert answer.returncode == 0, heard
    assert "indexed 3 images" in heard
    assert not Canaries.sings(heard)
    logs = [stack_data_dir.with_suffix(".log")]
    for file in [*logs, *(file for file in stack_data_dir.rglob("*") if file.is_file())]:
        assert b"CNRY" not in file.read_bytes(), file


def test_commands_repeat_the_callers_words_and_no_others(source: Path, stack: Stack) -> None:
    files = sorted(file for file in source.rglob("*") if file.is_file())
    server = ["--json", "--server", stack.gateway.address]
    refused = 0
    commands: list[list[str | Path]] = [["encode", *files, "--json"]]
    looked_up = [file for file in files if file.name.endswith(("whole", "cut"))]
    commands += [["retrieve", file, *server] for file in looked_up]
    for words in commands:
        answer, _ = said(*words)
        refused += answer.returncode in REFUSED
        assert answer.returncode in (0, *REFUSED), answer.stderr
        assert not Canaries.sings(answer.stderr)
        own = answer.stdout
        for file in files:
            own = own.replace(json.dumps(str(file)), "")
        assert not Canaries.sings(own)
    # One of two, and the encoding of all.
    assert refused == 2
