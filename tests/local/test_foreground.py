"""A `dafh up` that stays says what happens to the stack, and ends with it."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest

from dafh.stack import Process, Stack, write_stack
from dafh_local.foreground import stay
from dafh_local.lifecycle import Started

NOBODY = Process(pid=2**22, started=0, address="127.0.0.1:1")


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Started:
    monkeypatch.setattr("dafh_local.foreground.WATCH_SECONDS", 0.01)
    stack = Stack(
        triton=NOBODY,
        milvus=NOBODY,
        gateway=NOBODY,
        patient_key_file=tmp_path / "patient.key",
        model_version=1,
        bits=64,
    )
    write_stack(tmp_path, stack)
    return Started(stack, ("triton", "milvus", "gateway"))


def test_it_ends_when_the_stack_was_stopped_by_another(tmp_path: Path, started: Started) -> None:
    (tmp_path / "stack.json").unlink()
    said: list[str] = []
    stay(tmp_path, started, threading.Event(), said.append)
    assert said == ["Ctrl-C stops it.", "Stopped by `dafh down`."]


def test_it_says_which_parts_went_and_stops_the_rest_when_asked(
    tmp_path: Path, started: Started
) -> None:
    stopping = threading.Event()
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if text.startswith("gateway: down"):
            stopping.set()

    stay(tmp_path, started, stopping, say)
    assert [text.partition(";")[0] for text in said] == [
        "Ctrl-C stops it.",
        "triton: down",
        "milvus: down",
        "gateway: down",
        "Stopping …",
    ]
    assert not (tmp_path / "stack.json").exists()


def test_second_one_leaves_the_stack_to_the_first(tmp_path: Path, started: Started) -> None:
    said: list[str] = []
    with (tmp_path / ".foreground").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        stay(tmp_path, started, threading.Event(), said.append)
    assert said == ["Another `dafh up` watches this stack."]
    assert (tmp_path / "stack.json").exists()
