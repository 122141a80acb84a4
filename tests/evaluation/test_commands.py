"""`dafh evaluate`: ordinary mistakes are told in a sentence, and nothing is lost unsaid."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from dafh.cli import build
from dafh.encoding.onnx import OnnxEncoder
from dafh.encoding.scripted import ScriptedEncoder
from dafh.errors import DafhError, InvalidInput, Misconfigured, Reason
from dafh.evaluation.manifest import read_manifest
from dafh.settings import CHECKOUT

HEADER = ("file", "class", "split", "group")
#: Two classes, each asked once and answering three times; each image a group of its own.
ROWS = tuple(
    (f"{number}.png", "ab"[number % 2], "query" if number < 2 else "database", f"g{number}")
    for number in range(8)
)


def write(root: Path, rows: Sequence[tuple[str, ...]] = ROWS, encoding: str = "utf-8") -> Path:
    """Write noise, a picture a row, and the manifest of it."""
    for number, row in enumerate(rows):
        grey = np.random.default_rng(number).integers(0, 256, (40, 40), dtype=np.uint8)
        cv2.imwrite(str(root / row[0]), grey)
    manifest = root / "manifest.csv"
    with manifest.open("w", newline="", encoding=encoding) as stream:
        csv.writer(stream).writerows([HEADER, *rows])
    return manifest


def evaluate(manifest: Path, *words: str) -> str:
    """Run the command on images beside their manifest; return what it printed."""
    words = ("evaluate", "--manifest", str(manifest), "--root", str(manifest.parent), *words)
    answer = CliRunner().invoke(build(list(words)), list(words), catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def refusal(fault: type[DafhError], call: Callable[[], object]) -> DafhError:
    """Return the error of a call, which tells a person what to do."""
    with pytest.raises(fault) as caught:
        call()
    assert caught.value.remedy
    return caught.value


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> ScriptedEncoder:
    """Let the command encode with a double."""
    double = ScriptedEncoder()

    def opened(*_words: object, **_options: object) -> ScriptedEncoder:
        return double

    monkeypatch.setattr("dafh.encoding.onnx.OnnxEncoder", opened)
    return double


def test_a_file_that_is_missing_or_empty_is_left_out_and_told_by_its_reason(
    tmp_path: Path, encoder: ScriptedEncoder
) -> None:
    manifest = write(tmp_path)
    (tmp_path / "2.png").unlink()
    (tmp_path / "3.png").write_bytes(b"")
    with manifest.open("a") as stream:
        stream.write(",a,database,nameless\n")
    said = evaluate(manifest, "--json", str(tmp_path / "figures.json"))
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["refused"] == {"SOURCE_UNREADABLE": 2, "EMPTY_INPUT": 1}
    assert (
        "2 queries asked 4 database images; "
        "3 images were refused (1 EMPTY_INPUT, 2 SOURCE_UNREADABLE)."
    ) in said


def test_who_asked_and_who_could_answer_is_told_where_nothing_is_refused(
    tmp_path: Path, encoder: ScriptedEncoder
) -> None:
    said = evaluate(write(tmp_path), "--json", str(tmp_path / "figures.json"))
    assert "2 queries asked 6 database images; 0 images were refused." in said
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["queries_by_class"] == {"a": 1, "b": 1}


def test_a_split_that_has_no_readable_image_says_why(
    tmp_path: Path, encoder: ScriptedEncoder
) -> None:
    manifest = write(tmp_path)
    for name in ("0.png", "1.png"):
        (tmp_path / name).unlink()
    error = refusal(InvalidInput, lambda: evaluate(manifest))
    assert "'query'" in error.message
    assert "(2 SOURCE_UNREADABLE)" in error.message


def test_ranks_are_told_apart_on_a_narrow_terminal(
    tmp_path: Path, encoder: ScriptedEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = evaluate(write(tmp_path))
    assert [f"P@{rank} " in said for rank in (1, 5, 10)] == [True] * 3


def test_a_manifest_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    manifest = write(tmp_path)
    manifest.write_bytes("file,class,split\nä.png,a,query\n".encode("latin-1"))
    error = refusal(InvalidInput, lambda: read_manifest(manifest, tmp_path))
    assert error.reason is Reason.SOURCE_UNREADABLE
    assert "UTF-8" in error.message


def test_a_manifest_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    error = refusal(InvalidInput, lambda: read_manifest(tmp_path, tmp_path))
    assert error.reason is Reason.SOURCE_UNREADABLE
    # No path of this machine is in a message that may go out to callers.
    assert str(tmp_path) not in str(error)


def test_a_manifest_with_a_byte_order_mark_is_read_as_one_without(tmp_path: Path) -> None:
    plain = read_manifest(write(tmp_path), tmp_path)
    assert read_manifest(write(tmp_path, encoding="utf-8-sig"), tmp_path) == plain


@pytest.mark.parametrize("name", ["", " "])
def test_a_row_without_a_class_is_refused_by_its_number(tmp_path: Path, name: str) -> None:
    rows = [*ROWS[:2], ("2.png", name, "database", "g2"), *ROWS[3:]]
    manifest = write(tmp_path, rows)
    error = refusal(InvalidInput, lambda: read_manifest(manifest, tmp_path))
    assert "Row 3 " in error.message


def test_a_row_that_ends_before_its_class_is_refused_by_its_number(tmp_path: Path) -> None:
    manifest = write(tmp_path)
    with manifest.open("a") as stream:
        stream.write("8.png\n")
    error = refusal(InvalidInput, lambda: read_manifest(manifest, tmp_path))
    assert "Row 9 " in error.message


@pytest.mark.parametrize(
    ("option", "place"),
    [("json", "folder"), ("json", "file/figures.json"), ("plots", "file"), ("plots", "file/in")],
)
def test_what_cannot_be_written_is_refused_before_anything_is_encoded(
    tmp_path: Path, encoder: ScriptedEncoder, option: str, place: str
) -> None:
    manifest = write(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    error = refusal(Misconfigured, lambda: evaluate(manifest, f"--{option}", str(tmp_path / place)))
    assert (error.reason, error.subject) == (Reason.ARGUMENT_INVALID, option)
    assert encoder.answered == 0
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("before", [["figures of the one before"], []])
def test_an_evaluation_that_fails_leaves_what_was_there(
    tmp_path: Path, encoder: ScriptedEncoder, before: list[str]
) -> None:
    manifest, figures = write(tmp_path, ROWS[:2]), tmp_path / "figures.json"
    for text in before:
        figures.write_text(text)
    refusal(InvalidInput, lambda: evaluate(manifest, "--json", str(figures)))
    assert [path.read_text() for path in tmp_path.glob("*.json")] == before


@pytest.mark.parametrize("data", [b"no model", b"", b"\x08\x07"], ids=["text", "empty", "no graph"])
def test_a_model_that_is_no_onnx_file_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(data)
    error = refusal(Misconfigured, lambda: evaluate(write(tmp_path), "--model", str(file)))
    assert error.reason is Reason.MODEL_NOT_FOUND


def test_a_published_model_that_is_damaged_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "dafh" / "1"
    folder.mkdir(parents=True)
    whole = (CHECKOUT / "model_repository" / "dafh" / "1" / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(whole[: len(whole) // 2])
    error = refusal(Misconfigured, lambda: OnnxEncoder(tmp_path, 1))
    assert error.reason is Reason.MODEL_NOT_FOUND


def test_a_picture_that_would_be_empty_is_not_drawn(
    tmp_path: Path, encoder: ScriptedEncoder
) -> None:
    rows = [(file, f"{split} {name}", split, group) for file, name, split, group in ROWS]
    plots = tmp_path / "plots"
    said = evaluate(write(tmp_path, rows), "--plots", str(plots))
    assert {path.name for path in plots.iterdir()} == {"neighbours.png", "codes.png"}
    assert "precision-recall.png" not in said


@pytest.mark.parametrize("images", [1, 2])
def test_images_that_look_the_same_make_no_map(
    tmp_path: Path, encoder: ScriptedEncoder, images: int
) -> None:
    manifest, plots = write(tmp_path, ROWS[: 2 + images]), tmp_path / "plots"
    (tmp_path / "3.png").write_bytes((tmp_path / "2.png").read_bytes())
    evaluate(manifest, "--plots", str(plots))
    assert {path.name for path in plots.iterdir()} == {"neighbours.png", "precision-recall.png"}


@pytest.mark.parametrize("count", [4, 5, 6])
def test_few_images_are_drawn(tmp_path: Path, encoder: ScriptedEncoder, count: int) -> None:
    evaluate(write(tmp_path, ROWS[:count]), "--plots", str(tmp_path / "plots"))
    assert len(list((tmp_path / "plots").iterdir())) == 3
