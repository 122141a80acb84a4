"""What a person types wrongly gets one sentence and the documented exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dafh import cli
from dafh.imaging.phantom import phantoms

DAFH = str(Path(sys.executable).with_name("dafh"))


def dafh(home: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **settings}
    return subprocess.run(
        [DAFH, *words], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "a[-b].dcm"
    file.write_text("Dear colleague.\n" * 20)
    return file


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["retrieve", "missing.dcm"], 2),
        (["retrieve", "FOLDER"], 2),
        (["encode", "FOLDER"], 2),
        (["retrieve", "TEXT"], 2),
        (["retrieve", "TEXT", "--server", "127.0.0.1:1"], 3),
        (["encode", "TEXT"], 1),
        (["encode", "TEXT", "--model", "99"], 2),
        (["encode", "TEXT", "--model", "1", "--server", "127.0.0.1:1"], 3),
        (["index", "FOLDER"], 2),
        (["nonsense"], 2),
    ],
)
def test_a_mistake_gets_a_sentence_and_its_exit_code(
    words: list[str], code: int, text: Path, tmp_path: Path
) -> None:
    names = {"TEXT": str(text), "FOLDER": str(tmp_path)}
    answer = dafh(tmp_path, *(names.get(word, word) for word in words))
    assert answer.returncode == code, answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_defect_ends_with_its_own_code_and_tells_no_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(words: list[str]) -> None:
        del words
        raise IndexError("^".join(["DOE", "JANE"]))

    monkeypatch.setattr(cli, "build", build)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 70
    assert "A defect (IndexError)" in said
    assert "raise IndexError" in said
    assert "DOE^JANE" not in said


def test_a_file_name_cannot_command_the_terminal(tmp_path: Path) -> None:
    names = ("\x1b]0;owned\x07", "\x9b2J", "\udcff", "[bold]", "Müller")
    image = next(iter(phantoms(1, 72))).data
    files = [tmp_path / f"{kind}{name}" for kind in ("image ", "text ") for name in names]
    for file in files:
        file.write_bytes(image if file.name.startswith("image") else b"nothing")
    answer = dafh(tmp_path, "encode", *map(str, files), COLUMNS="400", PYTHONUTF8="1")
    assert answer.returncode == 1, answer.stderr
    said = "".join((answer.stdout + answer.stderr).split())
    assert all(character.isprintable() for character in said)
    for text in ("\\x1b]0;owned\\x07", "\\x9b2J", "\\udcff", "[bold]", "Müller"):
        assert f"image{text}" in said
        assert f"text{text}" in said


def test_a_server_that_is_away_is_worth_another_try(tmp_path: Path) -> None:
    assert dafh(tmp_path, "phantom", str(tmp_path / "out"), "--instances", "1").returncode == 0
    file = next((tmp_path / "out").glob("*.dcm"))
    proxy = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    for command in ("encode", "retrieve"):
        answer = dafh(tmp_path, command, str(file), "--server", "127.0.0.1:1", **proxy)
        assert answer.returncode == 4, answer.stderr
        assert "dafh status" in answer.stderr
        assert ":9" not in answer.stderr


def test_encoding_leaves_nothing_in_the_home(tmp_path: Path) -> None:
    home, out = tmp_path / "home", tmp_path / "out"
    home.mkdir()
    assert dafh(home, "phantom", str(out), "--instances", "1").returncode == 0
    answer = dafh(home, "encode", str(next(out.glob("*.dcm"))), "--json")
    assert answer.returncode == 0
    assert '"in_distribution": ' in answer.stdout
    assert list(home.rglob("*")) == []
