"""``dafh inspect`` judges every file and shows what the model would see of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image as Pillow
from typer.testing import CliRunner, Result

from dafh.errors import Misconfigured, Reason
from dafh.imaging.decode import REPRESENTATIVE, decode, decode_all
from dafh.imaging.inspect import Verdict, inspect
from dafh.imaging.phantom import Phantom

from .instances import MakeInstance

FRAMES = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8)


def run(*arguments: str | Path) -> Result:
    app = typer.Typer()
    app.command()(inspect)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def judged(*arguments: str | Path) -> list[dict[str, object]]:
    answer = run(*arguments, "--json")
    assert answer.exit_code == 0, answer.exception
    return [json.loads(line) for line in answer.stdout.splitlines()]


@pytest.fixture
def multi_frame(tmp_path: Path, make_instance: MakeInstance) -> Path:
    file = tmp_path / "multi.dcm"
    data = make_instance(FRAMES.reshape(24, 8), NumberOfFrames="3", Rows=8)
    file.write_bytes(data)
    return file


def test_every_file_is_judged_and_none_ends_the_run(
    tmp_path: Path, sample: list[Phantom], make_instance: MakeInstance
) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    contents = {
        "a.dcm": sample[0].data,
        "b.dcm": sample[0].data[:403],
        "c.txt": b"no image at all",
        "d": b"",
        "deep/er/e.dcm": make_instance(without=("PixelData",)),
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    lines = judged(tmp_path)
    assert [line["file"] for line in lines] == [str(tmp_path / name) for name in sorted(contents)]
    assert [line["reason"] for line in lines] == [
        None, Reason.DICOM_MALFORMED, Reason.NOT_AN_IMAGE, Reason.EMPTY_INPUT, Reason.NO_PIXELS,
    ]  # fmt: skip
    names = [field.name for field in fields(Verdict)]
    assert all(list(line) == names for line in lines)
    assert all(line["ok"] == (line["reason"] is None) == (not line["message"]) for line in lines)


def test_the_verdict_says_what_the_gateway_would_do(tmp_path: Path, sample: list[Phantom]) -> None:
    for number, phantom in enumerate(sample):
        (tmp_path / f"{number:02}.dcm").write_bytes(phantom.data)
    for line, phantom in zip(judged(tmp_path), sample, strict=True):
        image = decode(phantom.data, side=128, frame=REPRESENTATIVE)
        assert line["transfer_syntax"] == image.metadata.transfer_syntax
        assert line["transfer_syntax_name"] not in ("", image.metadata.transfer_syntax)
        assert (line["modality"], line["frames"]) == (phantom.modality, image.metadata.frames)
        assert (line["rows"], line["columns"]) == (image.metadata.rows, image.metadata.columns)
        assert line["applied"] == list(image.applied)
        assert line["warnings"] == list(image.warnings)


def test_pictures_are_the_models_input_named_by_content(
    tmp_path: Path, sample: list[Phantom]
) -> None:
    source, out = tmp_path / "DOE^JANE.dcm", tmp_path / "made" / "here"
    source.write_bytes(sample[0].data)
    (line,) = judged(source, "--png", out, "--side", "32")
    (picture,) = out.iterdir()
    assert line["png"] == [picture.name]
    expected = decode(sample[0].data, side=32, frame=REPRESENTATIVE).pixels[0]
    with Pillow.open(picture) as shown:
        assert np.array_equal(np.asarray(shown), expected)
    assert picture.stem == hashlib.sha256(expected.tobytes()).hexdigest()


def test_one_frame_the_representative_or_all(tmp_path: Path, multi_frame: Path) -> None:
    wanted = {image.frame: image.pixels for image in decode_all(multi_frame.read_bytes(), side=128)}
    assert len(wanted) == 3
    for choice, frame, frames in (
        ("2", 2, {2}),
        ("representative", 2, {2}),
        ("all", None, {1, 2, 3}),
    ):
        out = tmp_path / f"out-{choice}"
        (line,) = judged(multi_frame, "--frame", choice, "--png", out)
        assert (line["ok"], line["frames"], line["frame"]) == (True, 3, frame)
        names = {hashlib.sha256(wanted[number].tobytes()).hexdigest() + ".png" for number in frames}
        assert {picture.name for picture in out.iterdir()} == names


def test_a_frame_that_is_not_there_is_a_verdict(multi_frame: Path) -> None:
    (line,) = judged(multi_frame, "--frame", "4")
    assert line["reason"] == Reason.FRAME_OUT_OF_RANGE


@pytest.mark.parametrize("choice", ["0", "-1", "last", "1.5"])
def test_a_frame_that_means_nothing_is_a_usage_error(multi_frame: Path, choice: str) -> None:
    assert run(multi_frame, "--frame", choice).exit_code == 2


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    assert run(tmp_path / "nowhere.dcm").exit_code == 2


def test_a_png_says_its_format(tmp_path: Path) -> None:
    Pillow.fromarray(FRAMES[0]).save(tmp_path / "a.png")
    (line,) = judged(tmp_path / "a.png")
    assert (line["ok"], line["transfer_syntax"]) == (True, None)
    assert (line["transfer_syntax_name"], line["modality"]) == ("PNG", None)


def test_people_get_a_table_and_the_sum(tmp_path: Path, sample: list[Phantom]) -> None:
    (tmp_path / "a.dcm").write_bytes(sample[0].data)
    (tmp_path / "b.dcm").write_bytes(b"nothing")
    answer = run(tmp_path)
    assert answer.exit_code == 0
    assert "NOT_AN_IMAGE" in answer.stdout
    assert "1 taken, 1 refused" in answer.stdout


def test_a_file_name_cannot_command_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    for name in ("\x1b]0;owned\x07", "\x9b2J", "\udcff", "[bold]", "Müller"):
        (tmp_path / name).write_bytes(b"nothing")
    shown = "".join(run(tmp_path).stdout.split())
    assert all(character.isprintable() for character in shown)
    for text in ("\\x1b]0;owned\\x07", "\\x9b2J", "\\udcff", "[bold]", "Müller"):
        assert text in shown


def test_a_folder_that_cannot_be_written_is_one_clear_sentence(
    tmp_path: Path, sample: list[Phantom]
) -> None:
    file = tmp_path / "a.dcm"
    file.write_bytes(sample[0].data)
    answer = run(file, "--png", file / "below")
    assert isinstance(answer.exception, Misconfigured)


def test_an_empty_folder_is_judged_at_once(tmp_path: Path) -> None:
    assert judged(tmp_path) == []
