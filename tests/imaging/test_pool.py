"""Decoding in processes that may die: what a file can cost, and what it cannot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from dafh.deadline import CallDeadline, Deadline
from dafh.errors import DafhError, DeadlineExceeded, InvalidInput, Overloaded, Reason
from dafh.imaging import nursery, pool
from dafh.imaging.decode import REPRESENTATIVE, decode, decode_all
from dafh.imaging.image import Image, PatientKeyer
from dafh.imaging.limits import MEBIBYTE, Limits, Policy
from dafh.imaging.nursery import Died, Nursery
from dafh.imaging.phantom import Phantom
from dafh.imaging.pool import DecoderPool
from dafh.imaging.worker import Request, Setup

from .instances import write_instance
from .processes import alive, children, descriptors, limits_of, status_of, until

KEYER = PatientKeyer(b"\x5a" * 32, "default")
SMALL = write_instance()
CLIP = write_instance(
    np.arange(40 * 16 * 16, dtype=np.uint16).reshape(40 * 16, 16), Rows=16, NumberOfFrames=40
)


@pytest.fixture
def pools() -> Iterator[Callable[..., DecoderPool]]:
    """Make pools that are closed in the end."""
    with ExitStack() as stack:

        def make(workers: int = 1, limits: Limits | None = None) -> DecoderPool:
            policy = Policy(limits=limits or Limits(seconds=60))
            return stack.enter_context(DecoderPool(workers=workers, keyer=KEYER, policy=policy))

        yield make


def soon() -> Deadline:
    return Deadline.after(60)


def workers() -> list[int]:
    """Return the process ids of all workers of this process."""
    return [pid for zygote in children(os.getpid()) for pid in children(zygote)]


def same(first: Image, second: Image) -> bool:
    """Say whether two images are the same in every byte."""
    return np.array_equal(first.pixels, second.pixels) and all(
        getattr(first, name) == getattr(second, name)
        for name in ("frame", "content_sha256", "metadata", "applied", "warnings")
    )


def outcome(call: Callable[[], Image]) -> Image | DafhError:
    try:
        return call()
    except DafhError as error:
        return error


def reason(call: Callable[[], object]) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        call()
    return caught.value


class Held:
    """A request that its worker has not answered, since that is stopped."""

    def __init__(self, held: DecoderPool, deadline: Deadline | None = None) -> None:
        (self.pid,) = workers()
        worker = held._idle.get(timeout=30)
        assert worker is not None
        held._idle.put(worker)
        os.kill(self.pid, signal.SIGSTOP)
        self._threads = ThreadPoolExecutor(1)
        self.answer: Future[Image | DafhError] = self._threads.submit(
            outcome, lambda: held.decode(SMALL, side=8, deadline=deadline or soon())
        )
        until(lambda: worker.busy)
        self._threads.shutdown(wait=False)

    def signal(self, number: int) -> Image | DafhError:
        """Send a signal, which comes before anything the worker would do itself."""
        os.kill(self.pid, number)
        os.kill(self.pid, signal.SIGCONT)
        return self.answer.result(30)


def test_a_worker_gives_the_same_bytes(
    pools: Callable[..., DecoderPool], sample: list[Phantom]
) -> None:
    made = pools()
    for data in [SMALL, *(phantom.data for phantom in sample)]:
        ours = decode(data, side=64, keyer=KEYER, frame=REPRESENTATIVE)
        assert ours.metadata.patient_key
        theirs = made.decode(data, side=64, frame=REPRESENTATIVE, deadline=soon())
        assert same(ours, theirs)
        assert theirs.pixels.flags.writeable


def test_a_worker_refuses_in_the_same_words(pools: Callable[..., DecoderPool]) -> None:
    made = pools()
    before = workers()
    for data, frame in (
        (b"", 1),
        (b"MZ" + bytes(400), 1),
        (SMALL, 2),
        (SMALL[:-9], 1),
        (write_instance(without=("PixelData",)), 1),
        (write_instance(without=("Rows",)), 1),
        (write_instance(Rows=60_000, Columns=60_000), 1),
    ):
        ours = reason(lambda data=data, frame=frame: decode(data, side=8, frame=frame))  # type: ignore[misc]  # a lambda's defaults have no types
        theirs = outcome(lambda: made.decode(data, side=8, frame=frame, deadline=soon()))  # noqa: B023 - called at once
        assert isinstance(theirs, InvalidInput)
        assert vars(theirs) == vars(ours)
    assert workers() == before


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGKILL])
def test_a_crash_costs_one_request(
    number: signal.Signals, pools: Callable[..., DecoderPool]
) -> None:
    made = pools()
    answer = Held(made).signal(number)
    assert isinstance(answer, InvalidInput)
    assert answer.reason is Reason.DECODER_CRASHED
    assert number.name in answer.message
    assert answer.remedy
    assert isinstance(made.decode(SMALL, side=8, deadline=soon()), Image)


def test_other_requests_do_not_notice_a_crash(pools: Callable[..., DecoderPool]) -> None:
    made = pools(workers=2)
    victim = workers()[0]
    os.kill(victim, signal.SIGSTOP)
    with ThreadPoolExecutor(4) as threads:
        answers = [
            threads.submit(outcome, lambda: made.decode(SMALL, side=8, deadline=soon()))
            for _ in range(40)
        ]
        # All but the one that has the stopped worker are answered by the other.
        until(lambda: sum(answer.done() for answer in answers) == 39)
        os.kill(victim, signal.SIGSEGV)
        os.kill(victim, signal.SIGCONT)
        wait(answers, 30)
    errors = [answer.result() for answer in answers if isinstance(answer.result(), DafhError)]
    assert [str(error.reason) for error in errors if isinstance(error, DafhError)] == [
        "DECODER_CRASHED"
    ]


def test_a_hang_ends_at_the_limit_and_names_it(pools: Callable[..., DecoderPool]) -> None:
    made = pools(limits=Limits(seconds=0.3))
    held = Held(made)
    answer = held.answer.result(30)
    assert isinstance(answer, InvalidInput)
    assert (answer.reason, answer.subject) == (Reason.DECODE_TIMEOUT, "seconds")
    assert "seconds: > 0.3" in answer.message
    until(lambda: not alive(held.pid))
    assert isinstance(made.decode(SMALL, side=8, deadline=soon()), Image)


def test_a_nearer_deadline_is_the_callers_fault_not_the_files(
    pools: Callable[..., DecoderPool],
) -> None:
    made = pools()
    held = Held(made, Deadline.after(0.3))
    assert isinstance(held.answer.result(30), DeadlineExceeded)
    until(lambda: not alive(held.pid))
    assert isinstance(made.decode(SMALL, side=8, deadline=soon()), Image)


def test_too_much_memory_is_refused_by_the_limits_name(pools: Callable[..., DecoderPool]) -> None:
    made = pools(limits=Limits(memory_bytes=24 * MEBIBYTE))
    large = write_instance(np.zeros((2500, 2500), np.uint16))
    error = reason(lambda: made.decode(large, side=8, deadline=soon()))
    assert (error.reason, error.subject) == (Reason.LIMIT_EXCEEDED, "memory_bytes")
    assert f"memory_bytes: > {24 * MEBIBYTE}" in error.message
    assert isinstance(made.decode(SMALL, side=8, deadline=soon()), Image)


def test_a_codec_that_finds_no_memory_is_not_taken_for_damage(
    pools: Callable[..., DecoderPool],
) -> None:
    made = pools(limits=Limits(memory_bytes=64 * MEBIBYTE, frame_samples=2**23))
    data = jpeg_2000((np.arange(2800 * 2800) % 4001).astype(np.uint16).reshape(2800, 2800))
    assert isinstance(decode(data, side=8), Image)
    before = workers()
    error = reason(lambda: made.decode(data, side=8, deadline=soon()))
    assert (error.reason, error.subject) == (Reason.LIMIT_EXCEEDED, "memory_bytes")
    # What it has left behind is not held against the next.
    until(lambda: workers() not in ([], before))
    damaged = jpeg_2000(np.zeros((32, 32), np.uint16))[:-60]
    error = reason(lambda: made.decode(damaged, side=8, deadline=soon()))
    assert error.reason is Reason.PIXELS_UNDECODABLE


def jpeg_2000(values: np.ndarray[tuple[int, int], np.dtype[np.uint16]]) -> bytes:
    # Imported here: only this test encodes.
    from openjpeg.utils import encode_array

    stream = encode_array(values, bits_stored=16, photometric_interpretation=2)
    return write_instance(values, syntax=JPEG2000Lossless, PixelData=encapsulate([stream]))


def test_processor_time_is_bounded_where_nobody_looks_at_the_clock() -> None:
    many = 1_500_000
    data = SMALL[:-524] + b"\x09\x00\x01\x00UN\x00\x00\x00\x00\x00\x00" * many + SMALL[-524:]
    limits = Limits(seconds=0.1, elements=10 * many, request_bytes=2**26)
    made = Nursery()
    try:
        worker = made.worker(Setup(Policy(limits=limits), None))
        worker.ask(Request(8), data, time.monotonic() + 30)
        with pytest.raises(Died):
            worker.image(time.monotonic() + 60)
        assert worker.end() == -signal.SIGXCPU
    finally:
        made.close()


def test_every_frame_comes_as_in_process(pools: Callable[..., DecoderPool]) -> None:
    made = pools()
    ours = list(decode_all(CLIP, side=8, keyer=KEYER))
    theirs = list(made.decode_all(CLIP, side=8, deadline=soon()))
    assert [image.frame for image in theirs] == list(range(1, 41))
    assert all(map(same, ours, theirs))
    assert same(theirs[7], made.decode(CLIP, side=8, frame=8, deadline=soon()))


def test_an_abandoned_stream_gives_its_worker_back(pools: Callable[..., DecoderPool]) -> None:
    made = pools()
    for _ in range(3):
        frames = made.decode_all(CLIP, side=400, deadline=soon())
        assert next(frames).frame == 1
        frames.close()
    frames = made.decode_all(CLIP, side=400, deadline=soon())
    next(frames)
    del frames
    assert isinstance(made.decode(SMALL, side=8, deadline=soon()), Image)
    assert len(workers()) == 1


def test_a_damaged_frame_ends_the_stream_behind_the_good_ones(
    pools: Callable[..., DecoderPool],
) -> None:
    from openjpeg.utils import encode_array

    good = encode_array(np.eye(64, dtype=np.uint16), bits_stored=16, photometric_interpretation=2)
    data = write_instance(
        np.zeros((64, 64), np.uint16),
        syntax=JPEG2000Lossless,
        NumberOfFrames=3,
        PixelData=encapsulate([good, good, good[:40] + bytes(40)]),
    )
    made = pools()
    seen: list[int] = []
    error = reason(
        lambda: seen.extend(image.frame for image in made.decode_all(data, side=8, deadline=soon()))
    )
    assert error.reason is Reason.PIXELS_UNDECODABLE
    assert seen == [1, 2]


def test_nothing_leaks_over_many_requests(
    pools: Callable[..., DecoderPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MOST_REQUESTS", 30)
    made = pools(workers=2)
    before, first = descriptors(os.getpid()), set(workers())
    with ThreadPoolExecutor(3) as threads:
        for image in threads.map(lambda _: made.decode(SMALL, side=8, deadline=soon()), range(200)):
            assert image.frame == 1
    until(lambda: len(workers()) == 2)
    assert not first & set(workers()), "no worker was replaced"
    # One that is being started has a descriptor more for a moment.
    until(lambda: descriptors(os.getpid()) == before)


def test_nothing_leaks_over_many_crashes(pools: Callable[..., DecoderPool]) -> None:
    made = pools()
    before = descriptors(os.getpid())
    for _ in range(20):
        answer = Held(made).signal(signal.SIGSEGV)
        assert isinstance(answer, InvalidInput)
        until(lambda: len(workers()) == 1 and not made._idle.empty())
    # One that is being started has a descriptor more for a moment.
    until(lambda: descriptors(os.getpid()) == before)


def test_workers_that_die_idle_cost_nobody_anything(pools: Callable[..., DecoderPool]) -> None:
    made = pools(workers=2)
    before = workers()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(alive, before)))
    for _ in range(4):
        assert isinstance(made.decode(SMALL, side=8, deadline=soon()), Image)


def test_the_pool_outlives_its_zygote(pools: Callable[..., DecoderPool]) -> None:
    made = pools(workers=2)
    (zygote,) = children(os.getpid())
    before = workers()
    os.kill(zygote, signal.SIGKILL)
    until(lambda: not any(map(alive, before)))
    for _ in range(4):
        assert isinstance(made.decode(SMALL, side=8, deadline=soon()), Image)
    until(lambda: len(workers()) == 2)


def test_a_queue_that_is_full_says_so_at_once(
    pools: Callable[..., DecoderPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "WAITING", 1)
    made = pools()
    held = Held(made)
    with pytest.raises(DeadlineExceeded):
        made.decode(SMALL, side=8, deadline=Deadline.after(0.2))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(lambda: made.decode(SMALL, side=8, deadline=soon()))
        until(made._places.empty)
        with pytest.raises(Overloaded):
            made.decode(SMALL, side=8, deadline=soon())
        os.kill(held.pid, signal.SIGCONT)
        assert isinstance(waiting.result(30), Image)
    assert isinstance(held.answer.result(30), Image)


def test_closing_ends_all_and_requests_in_hand_fail_soon() -> None:
    made = DecoderPool(workers=1)
    held = Held(made)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(outcome, lambda: made.decode(SMALL, side=8, deadline=soon()))
        started = time.monotonic()
        made.close()
        made.close()
        assert isinstance(held.answer.result(30), Overloaded)
        assert isinstance(waiting.result(30), Overloaded)
    assert time.monotonic() - started < 20
    # Waited for by its own parent: where nobody adopts orphans, it would stay as a zombie.
    until(lambda: not Path(f"/proc/{held.pid}").exists())
    assert not children(os.getpid())
    with pytest.raises(Overloaded):
        made.decode(SMALL, side=8, deadline=soon())


#: Opens a pool, says who its processes are, and waits to be killed. Comes on standard input, so
#: that there is no main module to import.
PARENT = """
import sys, os, time
from dafh.imaging.pool import DecoderPool
pool = DecoderPool(workers=2)
print("ready", flush=True)
time.sleep(120)
"""


def test_killed_outright_the_parent_leaves_no_child() -> None:
    with subprocess.Popen(
        [sys.executable, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(PARENT.encode())
        parent.stdin.close()
        assert parent.stdout.readline() == b"ready\n"
        (zygote,) = children(parent.pid)
        family = [zygote, *children(zygote)]
        assert len(family) == 3
        os.kill(family[1], signal.SIGSTOP)
        parent.kill()
    until(lambda: not any(map(alive, family)))


def test_a_worker_has_given_up_what_it_needs_not(pools: Callable[..., DecoderPool]) -> None:
    pools(limits=Limits(memory_bytes=512 * MEBIBYTE))
    (pid,) = workers()
    limits = limits_of(pid)
    assert limits["Max core file size"] == "0"
    assert limits["Max file size"] == "0"
    assert int(limits["Max open files"]) <= 16
    assert int(limits["Max address space"]) < 4096 * MEBIBYTE
    status = status_of(pid)
    assert (status["NoNewPrivs"], status["Threads"]) == ("1", "1")
    # Out of the terminal's session: Ctrl-C is the parent's to handle.
    assert os.getsid(pid) != os.getsid(0)
    assert {os.readlink(f"/proc/{pid}/fd/{standard}") for standard in range(3)} == {"/dev/null"}  # noqa: PTH115 - the link's target is no path


def test_the_key_is_in_no_argument_and_no_environment(
    pools: Callable[..., DecoderPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_SECRET", "swordfish")
    made = pools()
    assert made.decode(SMALL, side=8, deadline=soon()).metadata.patient_key
    for pid in [*children(os.getpid()), *workers()]:
        known = (
            Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        )
        assert b"dafh.imaging.worker" in known
        assert KEYER.key not in known
        assert KEYER.key.hex().encode() not in known
        assert b"swordfish" not in known


def test_a_setup_reaches_the_worker_whole() -> None:
    policy = Policy(
        limits=Limits(seconds=1.5, frames=3), refuse_burned_in=True, allow_executable_preamble=True
    )
    for keyer in (None, PatientKeyer(b"k" * 32, "hôpital")):
        setup = Setup(policy, keyer)
        assert Setup.of(setup.as_json()) == setup
        assert "6b6b" not in repr(setup)
    assert json.loads(Setup(policy, None).as_json())["keyer"] is None


def test_a_caller_who_gives_up_ends_the_work(pools: Callable[..., DecoderPool]) -> None:
    made = pools()
    deadline = CallDeadline(time.monotonic() + 60)
    held = Held(made, deadline)
    deadline.give_up()
    assert isinstance(held.answer.result(5), DeadlineExceeded)
    until(lambda: not alive(held.pid))
    assert isinstance(made.decode(SMALL, side=8, deadline=soon()), Image)


def test_a_reply_that_makes_no_sense_costs_the_worker(
    pools: Callable[..., DecoderPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = pools()
    before = workers()

    def nonsense(*_: object) -> Image:
        raise ValueError("DOE^JOHN")

    with monkeypatch.context() as patched:
        patched.setattr(nursery, "read_image", nonsense)
        error = reason(lambda: made.decode(SMALL, side=8, deadline=soon()))
    assert error.reason is Reason.DECODER_CRASHED
    assert "DOE" not in str(error)
    assert error.__suppress_context__
    assert isinstance(made.decode(SMALL, side=8, deadline=soon()), Image)
    assert not set(before) & set(workers())


def test_many_threads_share_few_workers(pools: Callable[..., DecoderPool]) -> None:
    made = pools(workers=2)
    expected = {side: decode(SMALL, side=side, keyer=KEYER) for side in range(8, 24)}
    barrier = threading.Barrier(16)

    def ask(side: int) -> bool:
        barrier.wait(30)
        return all(
            same(expected[side], made.decode(SMALL, side=side, deadline=soon())) for _ in range(10)
        )

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(ask, expected))
