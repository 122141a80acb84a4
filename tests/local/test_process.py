"""What was started is found again and ended, and nothing else is."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dafh_local.process import MARK, Command, members, spawn, stop

#: Starts a child that ignores SIGTERM, says so, and waits.
FAMILY = """
import signal, subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
child += "print(1, flush=True); time.sleep(60)"
subprocess.Popen([sys.executable, "-c", child])
time.sleep(60)
"""
Launch = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dafh_local.process.ORPHAN_SECONDS", 0.3)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    started = []

    def start(script: str) -> subprocess.Popen[bytes]:
        command = Command((sys.executable, "-c", script), {"COLOUR": "blue"})
        started.append(spawn("part", tmp_path, command, tmp_path / "log"))
        return started[-1]

    yield start
    stop("part", tmp_path, grace=0)
    for process in started:
        process.wait(5)


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_children_are_found_too_and_the_leader_first(tmp_path: Path, launch: Launch) -> None:
    process = launch(FAMILY)
    until(lambda: len(members("part", tmp_path)) == 2)
    found = members("part", tmp_path)
    assert (found[0].pid, found[0].leads) == (process.pid, True)
    assert not found[1].leads


def test_stop_ends_children_that_ignore_sigterm(tmp_path: Path, launch: Launch) -> None:
    process = launch(FAMILY)
    until(lambda: (tmp_path / "log").read_text() == "1\n")
    stop("part", tmp_path, grace=5)
    assert members("part", tmp_path) == []
    assert process.wait(5) == -signal.SIGTERM


def test_orphans_of_a_killed_leader_are_found_and_ended(tmp_path: Path, launch: Launch) -> None:
    process = launch(FAMILY)
    until(lambda: (tmp_path / "log").read_text() == "1\n")
    process.kill()
    process.wait(5)
    assert [member.leads for member in members("part", tmp_path)] == [False]
    stop("part", tmp_path, grace=5)
    assert members("part", tmp_path) == []


def test_leader_that_ignores_sigterm_is_killed_after_its_grace(
    tmp_path: Path, launch: Launch
) -> None:
    process = launch(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(1, flush=True); time.sleep(60)"
    )
    until(lambda: (tmp_path / "log").read_text() == "1\n")
    stop("part", tmp_path, grace=0.2)
    assert process.wait(5) == -signal.SIGKILL


def test_other_parts_and_other_stacks_are_left_alone(tmp_path: Path, launch: Launch) -> None:
    process = launch("import time; time.sleep(60)")
    until(lambda: members("part", tmp_path))
    for part, data_dir in (("par", tmp_path), ("part", tmp_path / "x"), ("part", tmp_path.parent)):
        assert members(part, data_dir) == []
        stop(part, data_dir, grace=0)
    assert process.poll() is None


def test_dead_child_that_nobody_waited_for_is_not_a_member(tmp_path: Path, launch: Launch) -> None:
    process = launch("import time; time.sleep(60)")
    until(lambda: members("part", tmp_path))
    process.kill()
    until(lambda: not members("part", tmp_path))
    assert process.returncode is None  # it is still a zombie


def test_proxies_are_kept_out_and_settings_passed_on(
    tmp_path: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.invalid")
    monkeypatch.setenv("DAFH_LOG_LEVEL", "DEBUG")
    launch(
        "import json, os; print(json.dumps([os.environ.get(name) for name in "
        f"('https_proxy', 'DAFH_LOG_LEVEL', 'COLOUR', '{MARK}')]), flush=True)"
    )
    until(lambda: (tmp_path / "log").read_text().endswith("\n"))
    assert (tmp_path / "log").read_text() == f'[null, "DEBUG", "blue", "part@{tmp_path}"]\n'
