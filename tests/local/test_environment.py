"""Triton's server environment: complete or made again; what it lacks is said with its remedy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dafh.errors import Misconfigured, Reason
from dafh_local.environment import (
    MARKER,
    PYTHON_REQUIREMENTS,
    SERVER_REQUIREMENTS,
    TRITON_REPAIR,
    TritonEnvironment,
    library_missing,
)
from dafh_local.install import install
from dafh_local.settings import LocalSettings

INSTALLED = TritonEnvironment(LocalSettings().triton_home.resolve())


def test_every_pin_has_an_exact_version_and_a_hash() -> None:
    for path in (SERVER_REQUIREMENTS, PYTHON_REQUIREMENTS):
        text = path.read_text().replace("\\\n", " ")
        pins = [line for line in text.splitlines() if not line.startswith("#")]
        assert pins
        for pin in pins:
            assert "==" in pin
            assert "--hash=sha256:" in pin


def test_numpy_of_the_models_is_below_2() -> None:
    assert "numpy==1." in PYTHON_REQUIREMENTS.read_text()


def test_interrupted_installation_is_not_complete(tmp_path: Path) -> None:
    environment = TritonEnvironment(tmp_path)
    environment.binary.parent.mkdir(parents=True)
    environment.binary.touch()
    with pytest.raises(Misconfigured, match=r"dafh_local\.install") as caught:
        environment.require()
    assert caught.value.reason is Reason.NOT_INSTALLED


@pytest.mark.parametrize("changed", ["home", "python", "pins"])
def test_environment_of_another_place_python_or_pins_is_not_complete(
    tmp_path: Path, changed: str
) -> None:
    environment = TritonEnvironment(tmp_path)
    (tmp_path / MARKER).write_text(json.dumps(environment.expected))
    assert environment.is_complete()
    (tmp_path / MARKER).write_text(json.dumps({**environment.expected, changed: "other"}))
    assert not environment.is_complete()


def test_installing_again_does_nothing() -> None:
    steps: list[str] = []
    assert not install(INSTALLED, steps.append)
    assert steps == []


@pytest.mark.long
def test_interrupted_installation_is_made_again(tmp_path: Path) -> None:
    environment = TritonEnvironment(tmp_path / "triton")
    environment.server.mkdir(parents=True)
    (environment.server / "half").touch()
    steps: list[str] = []
    assert install(environment, steps.append)
    assert len(steps) == 2
    assert not (environment.server / "half").exists()
    environment.require()


def test_package_that_is_not_what_was_pinned_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    wheel.write_bytes(b"not what was pinned")
    pins = tmp_path / "pins.txt"
    pins.write_text(f"tiny @ {wheel.as_uri()} --hash=sha256:{'0' * 64}\n")
    monkeypatch.setattr("dafh_local.install.SERVER_REQUIREMENTS", pins)
    environment = TritonEnvironment(tmp_path / "triton")
    with pytest.raises(Misconfigured, match=r"(?i)hash") as caught:
        install(environment, lambda _step: None)
    assert caught.value.reason is Reason.NOT_INSTALLED
    assert not environment.is_complete()


def test_library_that_is_missing_is_named_in_one_sentence(tmp_path: Path) -> None:
    environment = TritonEnvironment(tmp_path / "triton")
    # Hard links where they can be made: nothing is written.
    copier = os.link if INSTALLED.home.stat().st_dev == tmp_path.stat().st_dev else shutil.copy2
    shutil.copytree(INSTALLED.server, environment.server, copy_function=copier, symlinks=True)
    (environment.home / MARKER).write_text(json.dumps(environment.expected))
    environment.require()
    library = next((environment.server / "nvidia_pytriton.libs").glob("libnuma-*"))
    library.unlink()
    answer = subprocess.run(
        [
            *(Path(sys.executable).with_name("dafh"), "up", "--detach", "--port", "0"),
            *("--data-dir", str(tmp_path / "data")),
        ],
        env={**os.environ, "DAFH_TRITON_HOME": str(environment.home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 2
    assert f"Triton cannot run: the shared library {library.name} is missing." in answer.stderr
    assert "--force" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_library_of_the_system_comes_with_its_package() -> None:
    error = library_missing("Triton", ["libpython3.11.so.1.0"], TRITON_REPAIR)
    assert error.remedy == "Run `apt-get install libpython3.11`."


def test_missing_environment_is_one_sentence_on_the_command_line(tmp_path: Path) -> None:
    # A place where nothing can be made: a file stands in the way.
    (tmp_path / "file").touch()
    answer = subprocess.run(
        [sys.executable, "-m", "dafh_local.install", "--home", str(tmp_path / "file" / "triton")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 2
    assert "cannot be written" in answer.stderr
    assert answer.stderr.count("\n") == 1
