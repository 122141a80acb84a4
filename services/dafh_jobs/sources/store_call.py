"""Questions to stores: each has a deadline, and nobody who is told to stop waits for an answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from dafh_jobs.sources.entry import UnreadableError
from dafh_jobs.stopping import Abandoned, told_to_stop

#: Seconds for an answer: to a question, and for the next piece of a file.
ANSWER_S = 60.0
#: Seconds for the list of a folder, which may be of a million objects, a thousand for each request.
LISTING_S = 600.0
#: Seconds after which one who waits looks whether it is in vain.
_GLANCE_S = 0.2

Answer = TypeVar("Answer")


class SilentError(UnreadableError):
    """A store did not answer in time."""


def ask(question: Callable[[], Answer], seconds: float | None = None) -> Answer:
    """Return what a store answers, by default within `ANSWER_S`.

    The libraries have no deadline in common, and some have none: the question is put in a thread of
    its own, which is left behind where no answer comes.

    Raises
    ------
    OSError
        Whatever the library raises; its errors have no ancestor in common, and their texts name
        what was asked for, which this one does not.
    Abandoned
        The program was told to stop meanwhile.
    """
    answer: Future[Answer] = Future()
    threading.Thread(target=_put, args=(question, answer), daemon=True).start()
    last = time.monotonic() + (ANSWER_S if seconds is None else seconds)
    while not wait([answer], _GLANCE_S).done:
        if told_to_stop():
            raise Abandoned
        if time.monotonic() > last:
            raise SilentError("a store does not answer")
    error = answer.exception()
    if error is None:
        return answer.result()
    why = error.strerror if isinstance(error, OSError) else None
    raise UnreadableError(why or type(error).__name__)


def _put(question: Callable[[], Answer], answer: Future[Answer]) -> None:
    try:
        answer.set_result(question())
    except Exception as error:  # noqa: BLE001 - it is raised again where the answer is awaited
        answer.set_exception(error)
