"""Questions, one after the other or from several clients at once, and what became of them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import numpy as np

from dafh.errors import DafhError

Ask = Callable[[bytes], object]
#: Makes what one client asks with; clients share nothing that the caller does not let them share.
Connect = Callable[[], AbstractContextManager[Ask]]

#: Questions that are asked before time is taken.
WARM_UP = 20


@dataclass(slots=True)
class Load:
    """What clients saw."""

    clients: int
    seconds: float
    #: Of what was answered.
    milliseconds: list[float] = field(default_factory=list)
    #: "answered", or the reason of a refusal -> how often.
    outcomes: Counter[str] = field(default_factory=Counter)

    def figures(self) -> dict[str, Any]:
        """Return what is kept."""
        return {
            "clients": self.clients,
            "per_s": round(len(self.milliseconds) / self.seconds, 1),
            **percentiles(self.milliseconds),
            "outcomes": dict(self.outcomes),
        }


def fresh(images: Sequence[bytes]) -> Iterator[bytes]:
    """Yield DICOM files in turn, no two equal: a number stands in the preamble, which says nothing.

    Else a gateway would answer from what it encoded a moment ago.
    """
    for number, data in enumerate(cycle(images), time.time_ns() // 1_000_000 % 10**12):
        yield f"{number:016}".encode() + data[16:]


def one_by_one(ask: Ask, made: Iterator[bytes], count: int, warm_up: int = WARM_UP) -> list[float]:
    """Return the milliseconds of questions one after the other, without those that warm up."""
    times = []
    for _ in range(warm_up + count):
        data = next(made)
        began = time.perf_counter()
        ask(data)
        times.append(1000 * (time.perf_counter() - began))
    return times[warm_up:]


def saturate(connect: Connect, made: Iterator[bytes], clients: int, seconds: float) -> Load:
    """Ask from clients that never pause."""
    lock, load = threading.Lock(), Load(clients, seconds)
    until = time.monotonic() + seconds

    def client(_: int) -> None:
        with connect() as ask:
            while time.monotonic() < until:
                with lock:
                    data = next(made)
                began = time.perf_counter()
                try:
                    ask(data)
                except DafhError as error:
                    load.outcomes[error.reason] += 1
                else:
                    load.milliseconds.append(1000 * (time.perf_counter() - began))
                    load.outcomes["answered"] += 1

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    return load


def percentiles(times: list[float]) -> dict[str, float]:
    """Return percentiles of milliseconds; nothing of nothing."""
    if not times:
        return {}
    return {f"p{share}": round(float(np.percentile(times, share)), 2) for share in (50, 95, 99)}
