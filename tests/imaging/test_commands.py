"""``dafh phantom`` writes files and a manifest that labels them."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dafh.errors import Misconfigured
from dafh.imaging.commands import phantom
from dafh.imaging.decode import decode
from dafh.imaging.phantom import Phantom

from .instances import SEED
from .processes import alive, until


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    made.command()(phantom)
    return made


def test_files_and_manifest_agree(app: typer.Typer, tmp_path: Path, sample: list[Phantom]) -> None:
    out = tmp_path / "made" / "here"
    answer = CliRunner().invoke(
        app, [str(out), "--instances", "5", "--seed", str(SEED), "--json"], catch_exceptions=False
    )
    assert answer.exit_code == 0
    assert json.loads(answer.stdout) == {"out": str(out), "instances": 5, "seed": SEED}
    with (out / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == [one.file_name for one in sample[:5]]
    for row, one in zip(rows, sample, strict=False):
        assert (row["label"], row["modality"]) == (one.label, one.modality)
        assert (out / row["file"]).read_bytes() == one.data
        assert decode(one.data, side=8).metadata.modality == row["modality"]
    assert {path.name for path in out.iterdir()} == {row["file"] for row in rows} | {"manifest.csv"}


def test_a_file_in_the_way_gives_one_clear_sentence(app: typer.Typer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = CliRunner().invoke(app, [str(tmp_path / "file" / "below"), "--instances", "1"])
    assert isinstance(answer.exception, Misconfigured)


def test_nothing_to_make_is_a_usage_error(app: typer.Typer, tmp_path: Path) -> None:
    assert CliRunner().invoke(app, [str(tmp_path / "out"), "--instances", "0"]).exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 130)]
)
def test_told_to_end_it_ends_its_processes_and_says_nothing(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    dafh = Path(sys.executable).with_name("dafh")
    # What ignores Ctrl-C, as a shell lets programs in the background, starts what ignores it too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        started = subprocess.Popen(
            [dafh, "phantom", tmp_path, "--instances", "9000"],
            stderr=subprocess.PIPE,
            text=True,
            # As a terminal tells all at once.
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with started as process:
        until(lambda: len(list(tmp_path.iterdir())) > 5)
        made = [int(one.name) for one in Path("/proc").iterdir() if in_session(one, process.pid)]
        if number is signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (code, "")
    assert len(made) > 2
    until(lambda: not any(map(alive, made)))


def in_session(folder: Path, session: int) -> bool:
    """Say whether a folder of proc(5) is that of a process of a session."""
    try:
        return folder.name.isdigit() and os.getsid(int(folder.name)) == session
    except ProcessLookupError:
        return False
