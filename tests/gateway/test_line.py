"""The line before the places, on a clock of the test's own: bursts, floods, turns."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dafh_gateway.line import SHORT, Line, Waiter

PLACES, LONGEST, PATIENCE = 2, 40, 1.0
#: Seconds that a call is worked on, and answers a second of places that are never idle.
WORK = 0.01
CAPACITY = PLACES / WORK


class Service:
    """Calls that each hold a place for `WORK` seconds; the clock jumps from event to event."""

    def __init__(self) -> None:
        self.now = 0.0
        self.line = Line(PLACES, LONGEST, PATIENCE, lambda: self.now)
        #: Of each tenant, the seconds in line of its calls that were answered, and its refusals.
        self.waits: dict[str, list[float]] = {}
        self.refused: Counter[str] = Counter()
        self._pending: dict[Waiter, tuple[float, Callable[[], None] | None]] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), event))

    def run(self) -> None:
        while self._events:
            self.now, _, event = heapq.heappop(self._events)
            event()

    def call(
        self, tenant: str = "a", then: Callable[[], None] | None = None, *, patient: bool = False
    ) -> None:
        """Arrive; do `then` when answered or refused."""
        self._pending[self.line.arrive(tenant, patient=patient)] = self.now, then
        self._settle()

    def send(self, tenant: str, rate: float, begin: float, end: float) -> None:
        """Call so many times a second, whatever comes back."""
        for when in np.arange(begin, end, 1 / rate):
            self.at(float(when), lambda: self.call(tenant))

    def repeat(self, tenant: str, until: float) -> None:
        """Call again as soon as the call before was answered or refused."""
        if self.now < until:
            self.call(tenant, lambda: self.repeat(tenant, until))

    def answered(self, tenant: str = "a") -> int:
        return len(self.waits.get(tenant, ()))

    def _settle(self) -> None:
        for waiter in [one for one in self._pending if one.told.is_set()]:
            since, then = self._pending.pop(waiter)
            if waiter.admitted:
                self.waits.setdefault(waiter.tenant, []).append(self.now - since)
                self.at(self.now + WORK, lambda then=then: self._leave(then))  # type: ignore[misc]  # mypy cannot infer such a lambda
            else:
                self.refused[waiter.tenant] += 1
                if then is not None:
                    self.at(self.now + WORK, then)

    def _leave(self, then: Callable[[], None] | None) -> None:
        self.line.leave()
        self._settle()
        if then is not None:
            then()


def test_a_burst_is_taken_whole_even_beside_others() -> None:
    service = Service()
    for number in range(40):
        service.at(0.0001 * number, service.call)
    service.send("b", 20.0, 0.05, 2.0)
    service.run()
    assert not service.refused
    assert service.answered() == 40
    assert max(service.waits["a"]) < 40 * WORK


def test_few_callers_without_pause_are_never_refused_and_wait_alike() -> None:
    service = Service()
    for _ in range(PLACES + SHORT * PLACES):
        service.at(0.0, lambda: service.repeat("a", 60.0))
    service.run()
    assert not service.refused
    assert service.answered() > 59 * CAPACITY
    assert max(service.waits["a"]) < (SHORT + 1) * WORK


def test_a_flood_costs_no_answer_and_who_is_answered_waits_little() -> None:
    service = Service()
    service.send("a", 5 * CAPACITY, 0.0, 20.0)
    service.run()
    assert service.answered() >= 0.99 * 20 * CAPACITY
    assert service.refused["a"] > 3 * 20 * CAPACITY
    waits = service.waits["a"]
    assert np.percentile(waits, 99) < 2 * WORK
    # What was still in line when it ended.
    assert max(waits) < 2 * SHORT * WORK


def test_after_a_flood_a_burst_is_taken_whole_again() -> None:
    service = Service()
    service.send("a", 5 * CAPACITY, 0.0, 5.0)
    for number in range(40):
        service.at(5.2 + 0.0001 * number, lambda: service.call("b"))
    service.run()
    assert service.refused["a"]
    assert not service.refused["b"]


def test_a_flood_that_stumbles_is_still_one() -> None:
    service = Service()
    # It stops for long enough to be worked off, and then sends what it has missed at once.
    for second in range(10):
        service.send("a", 5 * CAPACITY, second, second + 0.9)
        for number in range(40):
            service.at(second + 0.98 + 0.0001 * number, service.call)
    service.run()
    late = service.waits["a"][round(2 * PATIENCE * CAPACITY) :]
    assert max(late) < 2 * SHORT * WORK


def test_a_flood_is_over_though_callers_still_come() -> None:
    service = Service()
    service.send("a", 5 * CAPACITY, 0.0, 3.0)
    random = np.random.default_rng(0)
    for when in 3.0 + np.cumsum(random.exponential(1 / (0.5 * CAPACITY), 300)):
        service.at(float(when), service.call)
    for number in range(40):
        service.at(5.0 + 0.0001 * number, lambda: service.call("b"))
    service.run()
    assert service.refused["a"]
    assert not service.refused["b"]


def test_a_line_that_stands_is_not_a_burst_for_ever() -> None:
    service = Service()
    for _ in range(30):
        service.at(0.0, lambda: service.repeat("a", 10.0))
    service.run()
    assert service.refused["a"] > 100
    late = service.waits["a"][round(2 * PATIENCE * CAPACITY) :]
    assert max(late) < (SHORT + 1) * WORK


def test_a_tenant_that_floods_costs_others_nothing_but_a_turn() -> None:
    service = Service()
    service.send("flood", 5 * CAPACITY, 0.0, 10.0)
    service.send("guest", 0.2 * CAPACITY, 0.0, 10.0)
    service.run()
    assert not service.refused["guest"]
    assert max(service.waits["guest"]) <= 2 * WORK + 1e-9


def test_two_floods_are_answered_alike() -> None:
    service = Service()
    service.send("much", 8 * CAPACITY, 0.0, 10.0)
    service.send("more", 2 * CAPACITY, 0.0, 10.0)
    service.run()
    assert abs(service.answered("much") - service.answered("more")) < 0.05 * 10 * CAPACITY


def test_the_patient_are_not_refused_and_come_to_their_turn() -> None:
    service = Service()
    service.send("a", 5 * CAPACITY, 0.0, 5.0)
    for number in range(100):
        service.at(0.02 * number, lambda: service.call("b", patient=True))
    ended: list[float] = []
    service.at(0.5031, lambda: service.call("a", lambda: ended.append(service.now), patient=True))
    service.run()
    # Not behind those who came later, though the line is long.
    assert ended[0] < 0.7
    assert not service.refused["b"]
    assert service.answered("b") == 100
    assert service.answered("a") >= 0.99 * (5 * CAPACITY - 100)


class Arrivals(RuleBasedStateMachine):
    """Calls of some tenants arrive, leave and give up in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.line = Line(PLACES, 6, PATIENCE, lambda: self.now)
        self.calls: list[Waiter] = []

    def inside(self) -> list[Waiter]:
        return [call for call in self.calls if call.admitted]

    def outside(self) -> list[Waiter]:
        return [call for call in self.calls if not call.told.is_set()]

    @rule(tenant=st.sampled_from("abc"), patient=st.booleans())
    def arrive(self, tenant: str, patient: bool) -> None:
        self.calls.append(self.line.arrive(tenant, patient=patient))
        left = Counter(call.tenant for call in self.outside() if not call.patient)
        for call in [call for call in self.calls if call.told.is_set() and not call.admitted]:
            assert not call.patient
            # Nobody gives way to one who has as many in line.
            assert left[call.tenant] >= left[tenant] or call.tenant == tenant
            self.calls.remove(call)

    @precondition(lambda self: self.inside())
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.calls.remove(data.draw(st.sampled_from(self.inside())))
        self.line.leave()

    @precondition(lambda self: self.outside())
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(self.outside()))
        self.line.quit(waiter)
        self.calls.remove(waiter)

    @rule(seconds=st.floats(0.0, 2 * PATIENCE))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def no_place_is_lost_or_made_or_idle(self) -> None:
        assert self.line.busy == len(self.inside()) <= PLACES
        assert self.line.waiting == len(self.outside())
        assert self.line.busy == PLACES or not self.line.waiting

    @invariant()
    def the_line_has_an_end(self) -> None:
        assert sum(not call.patient for call in self.outside()) <= 6


TestArrivals = Arrivals.TestCase
TestArrivals.settings = settings(max_examples=100, deadline=None)
