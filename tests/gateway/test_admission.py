"""Places, lines and memory: who is let in, in which order, and who is told to come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from dafh.deadline import CallDeadline, Deadline
from dafh.errors import DeadlineExceeded, InvalidInput, Overloaded, Reason
from dafh_gateway.admission import Memory, Share, Stage
from dafh_gateway.line import Line
from dafh_gateway.sharing import Shared

SOON = Deadline.after(3600)


class Held:
    """Calls that hold their places until they are told to let go."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.order: list[str] = []
        self.release = threading.Event()
        self.pool = ThreadPoolExecutor(64)

    def call(self, tenant: str, deadline: Deadline = SOON) -> Future[None]:
        entered = self.among(tenant)

        def work() -> None:
            with self.stage.place(tenant, deadline):
                self.order.append(tenant)
                self.release.wait(10)

        future = self.pool.submit(work)
        until(lambda: future.done() or self.among(tenant) > entered)
        return future

    def among(self, tenant: str) -> int:
        """Return how many calls of a tenant have a place or wait for one."""
        return len(self.stage._line._waiting.get(tenant, ())) + self.order.count(tenant)

    def finish(self) -> None:
        self.release.set()
        self.pool.shutdown()


def stage(places: int, longest: int) -> Stage:
    return Stage("work", Line(places, longest, 10.0))


def until(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_no_more_than_its_places_are_taken() -> None:
    held = Held(stage(2, 10))
    for _ in range(5):
        held.call("a")
    assert (held.stage.busy, held.stage.waiting) == (2, 3)
    held.finish()
    assert (held.stage.busy, held.stage.waiting) == (0, 0)


def test_tenants_take_turns_in_line() -> None:
    held = Held(stage(1, 20))
    for tenant in ("a", "a", "a", "a", "b", "c", "b"):
        held.call(tenant)
    held.finish()
    assert held.order[:1] == ["a"]
    assert held.order[1:4] == ["a", "b", "c"]
    assert held.order[4:] == ["a", "b", "a"]


def test_in_a_full_line_the_tenant_with_most_gives_way() -> None:
    held = Held(stage(1, 4))
    flood = [held.call("flood") for _ in range(5)]
    held.call("guest")
    # The first that waits is told; the one that came before it has the place.
    with pytest.raises(Overloaded):
        flood[1].result(5)
    held.finish()
    assert held.order.count("guest") == 1
    assert held.order.count("flood") == 4


def test_a_deadline_ends_a_wait_and_leaves_the_line() -> None:
    held = Held(stage(1, 10))
    held.call("a")
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded), held.stage.place("a", Deadline.after(0.1)):
        pass
    assert time.monotonic() - began < 0.5
    assert held.stage.waiting == 0
    held.finish()


def test_who_gives_up_leaves_the_line_at_once() -> None:
    held = Held(stage(1, 10))
    held.call("a")
    deadline = CallDeadline.after(3600)
    waiting = held.call("a", deadline)
    deadline.give_up()
    with pytest.raises(DeadlineExceeded):
        waiting.result(1)
    assert held.stage.waiting == 0
    held.finish()
    assert held.order == ["a"]


def test_places_are_never_lost_or_made() -> None:
    entered = stage(3, 5)
    most, now, lock = 0, 0, threading.Lock()

    def work(number: int) -> str:
        nonlocal most, now
        try:
            with entered.place(f"t{number % 4}", Deadline.after(0.001 * (number % 7) + 0.0005)):
                with lock:
                    now += 1
                    most = max(most, now)
                time.sleep(0.0005)
                with lock:
                    now -= 1
        except (Overloaded, DeadlineExceeded) as error:
            return type(error).__name__
        return "done"

    with ThreadPoolExecutor(32) as pool:
        outcomes = set(pool.map(work, range(3000)))
    assert outcomes == {"done", "Overloaded", "DeadlineExceeded"}
    assert (entered.busy, entered.waiting) == (0, 0)
    assert most <= 3


def test_one_tenant_never_has_all() -> None:
    share = Share("calls", 4, 3)
    with share.one("a"), share.one("a"), share.one("a"):
        with pytest.raises(Overloaded), share.one("a"):
            pass
        with share.one("b"):
            assert share.held == 4
            with pytest.raises(Overloaded), share.one("c"):
                pass
    assert share.held == 0


def test_memory_is_promised_once_and_given_back() -> None:
    memory = Memory(100, 5.0)
    with memory.room(60, SOON) as room:
        room.shrink(10)
        assert memory.taken == 10
        room.shrink(50)
        assert memory.taken == 10
        with pytest.raises(DeadlineExceeded), memory.room(95, Deadline.after(0.05)):
            pass
    assert memory.taken == 0


def test_a_large_message_is_not_overtaken_for_ever() -> None:
    memory, order = Memory(100, 5.0), []

    def take(size: int) -> None:
        with memory.room(size, SOON):
            order.append(size)

    with ThreadPoolExecutor(4) as pool, memory.room(50, SOON):
        pool.submit(take, 90)
        until(lambda: len(memory._line) == 1)
        pool.submit(take, 10)
        time.sleep(0.05)
        assert order == []
    assert order == [90, 10]


def test_who_finds_no_memory_is_told_to_come_back() -> None:
    memory = Memory(100, 0.05)
    with memory.room(100, SOON), pytest.raises(Overloaded), memory.room(1, SOON):
        pass


def test_equal_work_is_done_once() -> None:
    shared: Shared[int] = Shared()
    made, go = [], threading.Event()

    def make() -> int:
        made.append(1)
        go.wait(5)
        return 7

    with ThreadPoolExecutor(10) as pool:
        results = [pool.submit(shared.get, "key", make, SOON) for _ in range(10)]
        time.sleep(0.05)
        go.set()
        told = [one.result(5) for one in results]
    assert sum(made) == 1
    assert sorted(told) == [(7, False)] * 9 + [(7, True)]


def test_one_callers_deadline_is_nobody_elses() -> None:
    shared: Shared[str] = Shared()

    def fail() -> str:
        time.sleep(0.05)
        raise DeadlineExceeded(Reason.DEADLINE_EXCEEDED, "mine")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(shared.get, "key", fail, SOON)
        time.sleep(0.01)
        second = pool.submit(shared.get, "key", lambda: "done", SOON)
        with pytest.raises(DeadlineExceeded):
            first.result(5)
        assert second.result(5) == ("done", True)


def test_what_is_wrong_with_the_work_is_told_to_all() -> None:
    shared: Shared[str] = Shared()
    made = []

    def fail() -> str:
        made.append(1)
        time.sleep(0.05)
        raise InvalidInput(Reason.NOT_AN_IMAGE, "no image")

    with ThreadPoolExecutor(5) as pool:
        results = [pool.submit(shared.get, "key", fail, SOON) for _ in range(5)]
        for one in results:
            with pytest.raises(InvalidInput):
                one.result(5)
    assert sum(made) == 1


def test_who_gives_up_does_not_wake_the_others() -> None:
    shared: Shared[str] = Shared()
    go = threading.Event()

    def make() -> str:
        go.wait(5)
        return "done"

    deadline = CallDeadline.after(3600)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(shared.get, "key", make, SOON)
        time.sleep(0.02)
        second = pool.submit(shared.get, "key", make, deadline)
        third = pool.submit(shared.get, "key", make, SOON)
        time.sleep(0.02)
        deadline.give_up()
        with pytest.raises(DeadlineExceeded):
            second.result(5)
        assert not third.done()
        go.set()
        assert first.result(5)[0] == third.result(5)[0] == "done"
