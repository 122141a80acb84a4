"""``dafh phantom`` writes files and a manifest that labels them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dafh.errors import Misconfigured
from dafh.imaging.commands import phantom
from dafh.imaging.decode import decode
from dafh.imaging.phantom import Phantom

from .instances import SEED


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
