"""A line in front of some places: who is let in next, and who is told to come back.

After "Fail at Scale" (B. Maurer, ACM Queue 13(8), 2015): a controlled delay, and the newest first
while a line is long. A line that was empty a moment ago is a burst, and may be long; one that has
stood for longer is a flood, which no patience ends, and is kept short until it pauses. Calls leave
it from the front (T. V. Lakshman et al., "The drop from front strategy in TCP and in TCP over ATM",
1996): who came last is the one who is still waited for, and so waits little whatever comes.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

#: Calls in line for each place that a flood leaves: they wait at most so many times as long as they
#: are then worked on, and no place is ever idle for want of one.
SHORT = 2
#: Share of the patience for which the line of a flood must be empty: a flood whose callers stumble
#: for a moment is not over.
PAUSE = 0.1


class Waiter:
    """One call at the places, or in line for one.

    Parameters
    ----------
    tenant
        Whose call it is.
    patient
        It waits however long it will take, and is not refused.
    """

    def __init__(self, tenant: str, *, patient: bool) -> None:
        self.tenant = tenant
        self.patient = patient
        #: Set when it is known whether it was admitted.
        self.told = threading.Event()
        self.admitted = False

    def tell(self, *, admitted: bool) -> None:
        """Let it in, or refuse it."""
        self.admitted = admitted
        self.told.set()


class Line:
    """Some places, and the calls that wait for one; tenants take turns. For one thread at a time.

    Parameters
    ----------
    places
        Calls at once.
    longest
        Calls that may wait, the patient ones not counted.
    patience
        Seconds for which a line may stand before it is kept short.
    clock
        Returns seconds.
    """

    def __init__(
        self,
        places: int,
        longest: int,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.places = places
        self._free = places
        self._longest = longest
        self._patience = patience
        self._clock = clock
        #: When a call last came to an empty line, and when a tenant's was last worked off.
        self._empty = self._ended = clock()
        #: Whether calls were refused of a line that had stood for too long.
        self._flood = False
        #: Tenant -> its calls in line, the first come first; whose turn is next comes first.
        self._waiting: OrderedDict[str, deque[Waiter]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Calls in line."""
        return sum(map(len, self._waiting.values()))

    @property
    def busy(self) -> int:
        """Places that are taken."""
        return self.places - self._free

    def arrive(self, tenant: str, *, patient: bool = False) -> Waiter:
        """Give a call a place, or let it wait for one."""
        waiter = Waiter(tenant, patient=patient)
        if not self._waiting:
            self._empty = self._clock()
            self._flood &= self._empty - self._ended < PAUSE * self._patience
            if self._free:
                self._free -= 1
                waiter.tell(admitted=True)
                return waiter
        self._waiting.setdefault(tenant, deque()).append(waiter)
        self._shorten(tenant)
        return waiter

    def leave(self) -> None:
        """Give a place back, and to the next in line."""
        if not self._waiting:
            self._free += 1
            return
        tenant, calls = next(iter(self._waiting.items()))
        # A long line is worked off from its end; who was promised a place is not overtaken there.
        long = sum(map(len, self._refusable().values())) > self._short
        waiter = calls[-1 if long and not calls[0].patient else 0]
        self._waiting.move_to_end(tenant)
        self.quit(waiter)
        waiter.tell(admitted=True)

    def quit(self, waiter: Waiter) -> None:
        """Take a call out of the line, if it is there."""
        calls = self._waiting.get(waiter.tenant, deque())
        if waiter in calls:
            calls.remove(waiter)
            if not calls:
                del self._waiting[waiter.tenant]
                self._ended = self._clock()

    @property
    def _short(self) -> int:
        return min(SHORT * self.places, self._longest)

    def _refusable(self) -> dict[str, deque[Waiter]]:
        """Return the calls in line that are not patient, by tenant."""
        return {
            tenant: deque(call for call in calls if not call.patient)
            for tenant, calls in self._waiting.items()
        }

    def _shorten(self, newest: str) -> None:
        """Refuse who waits longest of the tenant with the most in line, while it is too long."""
        refusable = self._refusable()
        length = sum(map(len, refusable.values()))
        if length > self._short and self._clock() - self._empty > self._patience:
            self._flood = True
        beyond = length - (self._short if self._flood else self._longest)
        for _ in range(beyond):
            # Of two with as many, the one that made it too long.
            most = max(refusable, key=lambda one: (len(refusable[one]), one == newest))
            first = refusable[most].popleft()
            self.quit(first)
            first.tell(admitted=False)
