"""A `dafh up` that stays: it watches, says when a part goes or comes, and stops all at the end."""

from __future__ import annotations

import fcntl
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from dafh.errors import Misconfigured
from dafh.stack import read_stack
from dafh_local.lifecycle import Started, stop_all
from dafh_local.status import State, look

#: Seconds between two looks: a part that is gone is reported within less than five.
WATCH_SECONDS = 2.0

#: What to add to a part's new state.
HINTS = {
    State.SERVING: "",
    State.WAITING: " for another part",
    State.SILENT: ": it runs but does not answer; `dafh up` in another terminal restarts it",
    State.DOWN: "; `dafh up` in another terminal starts it again",
}


def stop_on_signal() -> threading.Event:
    """Return an event that SIGINT, SIGTERM and SIGHUP set instead of ending this process.

    Whatever is in hand notices the event and cleans up; a second signal changes nothing.
    """
    stopping = threading.Event()

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup(1) and shells ignore signals on purpose for what is to go on in the background.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, ask_to_stop)
    return stopping


def stay(
    data_dir: Path, started: Started, stopping: threading.Event, say: Callable[[str], None]
) -> None:
    """Watch until `stopping` is set, then stop the stack; or until `dafh down` did.

    Returns at once where another `dafh up` stays already: one Ctrl-C must not stop another's stack.
    """
    with (data_dir / ".foreground").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another `dafh up` watches this stack.")
            return
        say("Ctrl-C stops it.")
        if _watch(data_dir, started, stopping, say):
            say("Stopping …")
            stop_all(data_dir)


def _watch(
    data_dir: Path, started: Started, stopping: threading.Event, say: Callable[[str], None]
) -> bool:
    """Say what changes; return whether the stack is to be stopped, or was already."""
    before: dict[str, State] = {}
    while not stopping.wait(WATCH_SECONDS):
        for child in started.children:
            # An ended child stays in the process table until its parent has looked.
            child.poll()
        try:
            read_stack(data_dir)
            now = {part.name: part.state for part in look(data_dir).parts}
        except Misconfigured:
            say("Stopped by `dafh down`.")
            return False
        for name, state in now.items():
            if state is not before.get(name, State.SERVING):
                say(f"{name}: {state}{HINTS[state]}")
        before = now
    return True
