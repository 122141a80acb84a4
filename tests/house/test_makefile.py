"""The Makefile says at once what it cannot work with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.test_house import CHECKOUT

#: What a stand-in for Python ends with where it is asked for anything but its version.
GOES_ON = 9


def make_environment(folder: Path, implementation: str, version: str) -> tuple[int, str]:
    """Have the Makefile make a virtual environment with a Python that claims to be another."""
    stand_in = folder / "python"
    claim = (
        f"import sys; sys.implementation.name = '{implementation}'; sys.version_info = {version}"
    )
    stand_in.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] || exit {GOES_ON}\n'
        f'exec {sys.executable} -c "{claim}; exec(sys.argv[1])" "$2"\n'
    )
    stand_in.chmod(0o755)
    venv = folder / "venv"
    done = subprocess.run(
        ["make", f"VENV={venv}", f"PYTHON={stand_in}", f"{venv}/bin/python"],  # noqa: S607 - as people do
        cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert not venv.exists()
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("implementation", "version"),
    [("cpython", "(3, 10, 9)"), ("cpython", "(3, 13, 0)"), ("pypy", "(3, 11, 1)")],
)
def test_a_python_without_triton_is_refused_in_a_sentence(
    tmp_path: Path, implementation: str, version: str
) -> None:
    status, said = make_environment(tmp_path, implementation, version)
    assert status != 0
    assert "is not CPython 3.11 or 3.12" in said
    assert f"Error {GOES_ON}" not in said


@pytest.mark.parametrize("version", ["(3, 11, 0)", "(3, 12, 9)"])
def test_a_python_with_triton_is_taken(tmp_path: Path, version: str) -> None:
    _, said = make_environment(tmp_path, "cpython", version)
    assert "is not CPython" not in said
    assert f"Error {GOES_ON}" in said
