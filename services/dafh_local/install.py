"""Makes Triton's server environment: ``python -m dafh_local.install [--force]``.

Two folders, both pinned by version and hash: ``server`` holds the wheel that carries tritonserver,
``python`` is a virtual environment with the numpy and ONNX Runtime that its python backend needs.
Doing it again when all is there takes no time; an interrupted installation is made again.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path

from dafh.cli import exit_code
from dafh.errors import DafhError, Misconfigured, Reason
from dafh.settings import load
from dafh.writing import write_atomically
from dafh_local.disk import writing
from dafh_local.environment import (
    MARKER,
    PYTHON_REQUIREMENTS,
    SERVER_REQUIREMENTS,
    TritonEnvironment,
)
from dafh_local.settings import LocalSettings

#: Longest silence allowed to pip, seconds: 85 MB over a slow line.
PIP_SECONDS = 1800.0
Progress = Callable[[str], None]


def install(environment: TritonEnvironment, progress: Progress, *, force: bool = False) -> bool:
    """Make the environment; return whether anything was to do.

    Raises
    ------
    Misconfigured
        pip failed, the disk is full, or a shared library of the system is missing.
    """
    home = environment.home
    with writing(home):
        home.mkdir(parents=True, exist_ok=True)
        with home.with_name(f".{home.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            needed = force or not environment.is_complete()
            if needed:
                _make(environment, progress)
    environment.require()
    return needed


def _make(environment: TritonEnvironment, progress: Progress) -> None:
    shutil.rmtree(environment.home)
    environment.home.mkdir()
    progress("Triton's server (55 MB) …")
    _pip("--target", str(environment.server), "--requirement", str(SERVER_REQUIREMENTS))
    progress("the Python environment of Triton's models (50 MB) …")
    venv.create(environment.python, symlinks=True, with_pip=False)
    _pip(
        "--requirement",
        str(PYTHON_REQUIREMENTS),
        before=("--python", str(environment.python / "bin" / "python")),
    )
    complete = f"{json.dumps(environment.expected, indent=2)}\n"
    write_atomically(environment.home / MARKER, complete.encode())


def _pip(*arguments: str, before: tuple[str, ...] = ()) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        *before,
        "install",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        "--disable-pip-version-check",
        *arguments,
    ]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise Misconfigured(
            Reason.NOT_INSTALLED,
            f"pip did not finish within {PIP_SECONDS:.0f} s.",
            remedy="Look at the network and run it again.",
        ) from None
    if answer.returncode == 0:
        return
    if "No space left on device" in answer.stderr:
        raise Misconfigured(
            Reason.DISK_FULL,
            "The disk is full: Triton's server environment needs 400 MB.",
            remedy="Make room, or set DAFH_TRITON_HOME to a folder on another disk.",
        )
    lines = [line for line in answer.stderr.splitlines() if line.startswith("ERROR")]
    last = (lines or answer.stderr.splitlines() or ["it said nothing"])[-1]
    raise Misconfigured(
        Reason.NOT_INSTALLED,
        f"pip could not install Triton's server environment: {last.removeprefix('ERROR: ')}",
        remedy="It needs CPython 3.11 or 3.12, Linux x86-64 with glibc 2.35, and a package index.",
    )


def main() -> None:
    """Install, with one line per step on standard error."""
    parser = argparse.ArgumentParser(prog="python -m dafh_local.install", description=__doc__)
    parser.add_argument("--force", action="store_true", help="make it again even if it is there")
    parser.add_argument("--home", type=Path, help="where (default: DAFH_TRITON_HOME or the venv)")
    options = parser.parse_args()
    try:
        home = (options.home or load(LocalSettings).triton_home).expanduser().resolve()
        start = time.monotonic()
        made = install(
            TritonEnvironment(home),
            lambda step: _say(f"installing {step}"),
            force=options.force,
        )
        _say(f"ready ({time.monotonic() - start:.0f} s)" if made else "already there")
    except DafhError as error:
        _say(str(error))
        sys.exit(exit_code(error))


def _say(text: str) -> None:
    sys.stderr.write(f"Triton server environment: {text}\n")


if __name__ == "__main__":
    main()
