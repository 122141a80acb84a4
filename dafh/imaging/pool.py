"""Decoding in processes that may die: `decode` and `decode_all` for programs that must not.

A file that crashes, hangs or exhausts its decoder costs its own request and no other. How and why:
docs/decisions/0005-decode-workers.md.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import NoReturn, Self

from dafh.deadline import Deadline
from dafh.errors import InvalidInput, Misconfigured, Overloaded, Reason
from dafh.imaging.image import Image, PatientKeyer
from dafh.imaging.limits import DEFAULT_POLICY, Policy
from dafh.imaging.nursery import Died, Nonsense, Nursery, Worker
from dafh.imaging.sniff import sniff
from dafh.imaging.worker import Request, Setup

#: Requests that a worker answers before it is replaced.
MOST_REQUESTS = 1000
#: Requests for each worker that may wait for one; more are refused.
WAITING = 16
#: Seconds that a request without a deadline of its own waits for a worker.
MOST_WAIT = 60.0
#: Seconds between attempts to start a worker.
RETRY = 1.0
#: Seconds in which the keeper must let go when the pool closes.
CLOSE_SECONDS = 5.0

_log = logging.getLogger(__name__)


class DecoderPool:
    """Worker processes that decode, ready when the constructor returns; for many threads at once.

    Use it as a context manager, or `close` it.

    Parameters
    ----------
    workers
        Processes: files that are decoded at the same time. Together they may take `workers` times
        `Limits.memory_bytes`.
    keyer
        Makes the patient key, inside the worker; without it the key is "".
    policy
        What is refused.

    Raises
    ------
    Misconfigured
        START_FAILED: the processes cannot be started.
    """

    def __init__(
        self, *, workers: int, keyer: PatientKeyer | None = None, policy: Policy = DEFAULT_POLICY
    ) -> None:
        self._policy = policy
        self._setup = Setup(policy, keyer)
        self._closed = threading.Event()
        # Simple queues, since an abandoned `decode_all` may be put away by the garbage collector
        # in the middle of anything: their `put` alone can bear that.
        self._places: SimpleQueue[None] = SimpleQueue()
        self._idle: SimpleQueue[Worker | None] = SimpleQueue()
        self._retired: SimpleQueue[Worker | None] = SimpleQueue()
        for _ in range(workers * (1 + WAITING)):
            self._places.put(None)
        self._nursery = Nursery()
        try:
            for _ in range(workers):
                self._idle.put(self._nursery.worker(self._setup))
        except Died:
            self._nursery.close()
            self._drain()
            raise Misconfigured(
                Reason.START_FAILED, "A decoder process ended while it started."
            ) from None
        self._keeper = threading.Thread(target=self._keep, name="decoders", daemon=True)
        self._keeper.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def policy(self) -> Policy:
        """What is refused."""
        return self._policy

    def decode(
        self,
        data: bytes,
        *,
        side: int,
        frame: int = 1,
        window: int | str = 1,
        content_hash: bool = True,
        deadline: Deadline,
    ) -> Image:
        """Do as `dafh.imaging.decode.decode`, in a worker.

        Parameters
        ----------
        data, side, frame, window, content_hash
            As for `decode`.
        deadline
            When the answer is no longer wanted; `Limits.seconds` ends the work where it is nearer,
            and so does a caller who gives up.

        Raises
        ------
        InvalidInput
            As `decode`, and DECODER_CRASHED, DECODE_TIMEOUT, or LIMIT_EXCEEDED for memory_bytes.
        DeadlineExceeded
            The deadline passed before the image was there.
        Overloaded
            Too many requests wait for a worker already, or the pool is being closed.
        """
        request = Request(side, frame, window, content_hash)
        with closing(self._images(data, request, deadline)) as images:
            return next(images)

    def decode_all(
        self,
        data: bytes,
        *,
        side: int,
        window: int | str = 1,
        content_hash: bool = True,
        deadline: Deadline,
    ) -> Generator[Image]:
        """Do as `dafh.imaging.decode.decode_all`, in a worker.

        A worker is held from the first frame asked for to the last, or until the iterator is
        closed. `Limits.seconds` counts for each frame, the deadline for all.

        Parameters
        ----------
        data, side, window, deadline
            As for `decode`.

        Yields
        ------
        Image
            One frame after the other.

        Raises
        ------
        InvalidInput, DeadlineExceeded, Overloaded
            As `decode`.
        """
        request = Request(side, window=window, content_hash=content_hash, every=True)
        return self._images(data, request, deadline)

    def close(self) -> None:
        """End all processes; requests in hand fail as Overloaded."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._nursery.close()
        self._retired.put(None)
        self._keeper.join(CLOSE_SECONDS)
        self._drain()

    def _drain(self) -> None:
        """Let go of workers that nobody will use, and tell whoever waits for one."""
        for queue in (self._idle, self._retired):
            while not queue.empty():
                worker = queue.get()
                if worker is not None:
                    worker.end()
        self._idle.put(None)

    def _images(self, data: bytes, request: Request, deadline: Deadline) -> Generator[Image]:
        # Cheap, and nothing but the first bytes is looked at: rubbish needs no worker.
        sniff(data, self._policy)
        with self._borrowed(deadline) as worker:
            while True:
                yield self._next(worker, data, request, deadline)
                if not worker.busy:
                    return

    def _next(self, worker: Worker, data: bytes, request: Request, deadline: Deadline) -> Image:
        """Return the next image of a request; whatever the worker does, it is the file's fault."""
        seconds = self._policy.limits.seconds
        until = min(time.monotonic() + seconds, deadline.at)
        try:
            with deadline.stopping(worker.abandon):
                if not worker.busy:
                    worker.ask(request, data, until)
                return worker.image(until)
        except TimeoutError:
            deadline.remaining("the image was decoded")
            self._blame("timeout")
            raise self._too_slow() from None
        except Nonsense as nonsense:
            self._blame(str(nonsense))
            raise _crashed("failed") from None
        except Died:
            status = worker.end()
            deadline.remaining("the image was decoded")
            self._after_death(status)

    def _after_death(self, status: int | None) -> NoReturn:
        """Say how a worker ended: an exit status, or a signal's number below zero."""
        if self._closed.is_set():
            raise _closing()
        if status == -signal.SIGXCPU:
            self._blame("processor time")
            raise self._too_slow()
        how = "ended"
        if status is not None:
            how = f"ended by {signal.Signals(-status).name}" if status < 0 else f"exited ({status})"
        self._blame(how)
        raise _crashed(how)

    def _blame(self, cause: str) -> None:
        _log.warning("a file cost its decoder", extra={"cause": cause})

    def _too_slow(self) -> InvalidInput:
        return InvalidInput(
            Reason.DECODE_TIMEOUT,
            f"Decoding one frame exceeds the limit seconds: > {self._policy.limits.seconds:g}.",
            remedy="Send a smaller object, or have the operator raise the limit.",
            subject="seconds",
        )

    @contextmanager
    def _borrowed(self, deadline: Deadline) -> Iterator[Worker]:
        """Lend a worker to one request."""
        try:
            self._places.get_nowait()
        except Empty:
            raise _overloaded("too many images wait to be decoded") from None
        try:
            worker = self._take(deadline)
            try:
                yield worker
            finally:
                spent = worker.busy or worker.old or worker.answered >= MOST_REQUESTS
                (self._retired if spent else self._idle).put(worker)
                if self._closed.is_set():
                    self._drain()
        finally:
            self._places.put(None)

    def _take(self, deadline: Deadline) -> Worker:
        while True:
            patience = min(MOST_WAIT, deadline.remaining("a decoder was free"))
            try:
                worker = self._idle.get(timeout=patience)
            except Empty:
                deadline.remaining("a decoder was free")
                raise _overloaded(f"no decoder became free in {MOST_WAIT:g} s") from None
            if worker is None:
                # For the next one who waits.
                self._idle.put(None)
                raise _closing()
            if worker.at_rest():
                return worker
            self._retired.put(worker)

    def _keep(self) -> None:
        """Replace workers that are spent."""
        while (worker := self._retired.get()) is not None:
            worker.end()
            while not self._closed.is_set():
                try:
                    self._idle.put(self._successor())
                    break
                except (Died, Misconfigured) as error:
                    _log.warning("no decoder starts", extra={"cause": type(error).__name__})
                    self._closed.wait(RETRY)

    def _successor(self) -> Worker:
        if self._nursery.lost:
            self._nursery.close()
            self._nursery = Nursery()
            if self._closed.is_set():
                self._nursery.close()
        return self._nursery.worker(self._setup)


def _crashed(how: str) -> InvalidInput:
    return InvalidInput(
        Reason.DECODER_CRASHED,
        f"The decoder {how} at this file.",
        remedy="Send the complete file; if it is, export it again in another transfer syntax.",
    )


def _overloaded(what: str) -> Overloaded:
    return Overloaded(
        Reason.OVERLOADED,
        f"The decoders are busy: {what}.",
        remedy="Try again a little later.",
    )


def _closing() -> Overloaded:
    return Overloaded(Reason.OVERLOADED, "The decoders are being stopped.")
