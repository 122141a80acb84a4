"""What a job says while it works: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dafh_jobs.pace import Pace

#: Seconds between lines where nobody watches, and between changes of the bar.
LINE_S, BAR_S = 10.0, 0.2


class Shown:
    """Shows a pace; a context manager.

    Parameters
    ----------
    title
        What the job does.
    pace
        What is shown.
    console
        Where.
    """

    def __init__(self, title: str, pace: Pace, console: Console) -> None:
        self._title, self._pace, self._console = title, pace, console
        self._next = time.monotonic() + (BAR_S if console.is_terminal else LINE_S)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.0f}/s"),
            TextColumn("{task.fields[left_out]} left out"),
            TextColumn("slowest: {task.fields[slowest]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=None, rate=0.0, left_out=0, slowest="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._update()
        self._bar.stop()

    def show(self) -> None:
        """Show the pace, if it is time to."""
        if time.monotonic() < self._next:
            return
        if self._console.is_terminal:
            self._next = time.monotonic() + BAR_S
            self._update()
        else:
            self._next = time.monotonic() + LINE_S
            self.say(str(self._pace))

    def say(self, sentence: str) -> None:
        """Say something that happened."""
        self._console.print(f"{self._title}: {sentence}", markup=False, soft_wrap=True)

    def _update(self) -> None:
        pace = self._pace
        self._bar.update(
            self._task,
            completed=pace.files,
            total=pace.total,
            rate=pace.rate,
            left_out=pace.left_out,
            slowest=pace.slowest,
        )


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield what shows, on a terminal, how much is done and of how much."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
