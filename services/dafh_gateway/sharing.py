"""The same work asked for several times at once is done once."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from copy import copy
from typing import Generic, TypeVar

from dafh.deadline import Deadline
from dafh.errors import DafhError, DeadlineExceeded, Overloaded

Result = TypeVar("Result")

#: Seconds for which a result is kept for calls that came a moment later.
KEPT_S = 1.0
#: Results that are kept at most.
KEPT = 64
#: Seconds between looks at whether a caller that waits has given up.
PIECE_S = 0.1


class _Work(Generic[Result]):
    def __init__(self) -> None:
        self.done = threading.Event()
        self.result: Result | None = None
        self.fault: DafhError | None = None
        self.until = 0.0


class Shared(Generic[Result]):
    """Does work once for all who ask for the same meanwhile, or a second later."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._works: OrderedDict[Hashable, _Work[Result]] = OrderedDict()

    def get(
        self, key: Hashable, make: Callable[[], Result], deadline: Deadline
    ) -> tuple[Result, bool]:
        """Return what `make` makes, or what another's made under the same key; and whether it did.

        Raises
        ------
        DafhError
            What `make` raised; but one caller's deadline, or place in line, is nobody else's.
        """
        while True:
            work, mine = self._join(key)
            if mine:
                return self._do(key, work, make), True
            # In short pieces, for this caller may give up before the one who does the work.
            while not work.done.wait(min(deadline.remaining("encoding"), PIECE_S)):
                continue
            if work.result is not None:
                return work.result, False
            if work.fault is not None and not isinstance(
                work.fault, (DeadlineExceeded, Overloaded)
            ):
                raise work.fault

    def _join(self, key: Hashable) -> tuple[_Work[Result], bool]:
        with self._lock:
            now = time.monotonic()
            while self._works:
                oldest = next(iter(self._works.values()))
                if not oldest.done.is_set() or (oldest.until > now and len(self._works) <= KEPT):
                    break
                self._works.popitem(last=False)
            work = self._works.get(key)
            if work is not None and (work.until == 0.0 or work.until > now):
                return work, False
            work = self._works[key] = _Work()
            return work, True

    def _do(self, key: Hashable, work: _Work[Result], make: Callable[[], Result]) -> Result:
        try:
            work.result = make()
            return work.result
        except DafhError as fault:
            # A copy: the error itself leads to frames that hold on to the caller's image.
            work.fault = copy(fault)
            raise
        finally:
            with self._lock:
                work.until = time.monotonic() + (KEPT_S if work.result is not None else 0.0)
                if work.result is None and self._works.get(key) is work:
                    del self._works[key]
            work.done.set()
