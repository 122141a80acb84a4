"""The parent side of the worker processes: starting them, talking to them, ending them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Final

from dafh.errors import Misconfigured, Reason
from dafh.imaging import worker as child
from dafh.imaging.image import Image
from dafh.imaging.replies import MOST_TEXT, read_defect, read_image, read_refusal

#: Seconds for the decoder to be imported, or a worker to be forked, on a busy machine.
START_SECONDS = 60.0
#: Seconds for the zygote to end a worker.
END_SECONDS = 10.0
#: Seconds for the zygote to end with all its workers.
CLOSE_SECONDS = 5.0

#: Bytes that may lie in the socket to a worker, where the kernel grants it (net.core.wmem_max): a
#: slice goes over in one piece, without the two processes waiting for each other in turns.
SEND_BUFFER = 2**20

#: BLAS would start a thread for each processor, and threads do not survive a fork.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class Died(Exception):  # noqa: N818 - says what happened; does not leave this package
    """The other process has closed its socket."""


class Nonsense(Exception):  # noqa: N818 - as above
    """The other process says what it must not say."""


class Nursery:
    """The zygote: a process that has imported the decoder and forks workers from itself.

    Raises
    ------
    Misconfigured
        START_FAILED.
    """

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        #: Whether it answers no longer; its workers end with it.
        self.lost = False
        with theirs, _without(signal.SIGTERM):
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", child.__name__],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                # Nothing of ours is inherited that a hijacked decoder could read.
                env={"PYTHONPATH": os.pathsep.join(sys.path), **ONE_THREAD},
                # Out of the reach of a terminal's Ctrl-C: the pool ends it.
                start_new_session=True,
            )
        self._control.settimeout(START_SECONDS)
        try:
            ready = self._control.recv(len(child.READY))
        except OSError:
            ready = b""
        if ready != child.READY:
            self.close()
            raise Misconfigured(
                Reason.START_FAILED,
                "The decoder cannot be imported in a process of its own.",
                remedy="What that process wrote on standard error says why.",
            )

    def worker(self, setup: child.Setup) -> Worker:
        """Fork a worker.

        Raises
        ------
        Died
            The zygote or the new worker ended.
        """
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        with theirs:
            pid = self._order(child.FORK, 0, START_SECONDS, [theirs.fileno()])
        if pid is None or pid < 0:
            ours.close()
            raise Died
        worker = Worker(self, pid, ours)
        worker.start(setup)
        return worker

    def end(self, pid: int, *, at_once: bool) -> int | None:
        """End a worker and return how it ended; `None` where the zygote is lost, and it with it."""
        return self._order(child.KILL if at_once else child.REAP, pid, END_SECONDS)

    def _order(
        self, what: bytes, pid: int, seconds: float, descriptors: list[int] | None = None
    ) -> int | None:
        with self._lock:
            if self.lost:
                return None
            try:
                self._control.settimeout(seconds)
                order = child.ORDER.pack(what, pid)
                socket.send_fds(self._control, [order], descriptors or [])
                answer = self._control.recv(child.ANSWER.size)
            except OSError:
                answer = b""
            if len(answer) != child.ANSWER.size:
                # Late answers would be taken for those of the next order.
                self.lost = True
                self._process.kill()
                return None
        number: int = child.ANSWER.unpack(answer)[0]
        return number

    def close(self) -> None:
        """End the zygote and all workers."""
        # Wakes whoever waits for an answer; the zygote ends its workers, and then itself.
        _shut(self._control)
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with self._lock:
            self.lost = True
            self._control.close()


class Worker:
    """A worker process: one request at a time.

    Parameters
    ----------
    nursery
        Where it was forked.
    pid
        Its process id.
    connection
        To it.
    """

    def __init__(self, nursery: Nursery, pid: int, connection: socket.socket) -> None:
        self.pid: Final = pid
        #: Whether replies to a request are still to come, or are lost.
        self.busy = False
        #: Whether it says of itself that it has grown.
        self.old = False
        #: Requests answered.
        self.answered = 0
        self._nursery = nursery
        self._connection = connection
        self._abandoned = False
        self._request = child.Request(0)
        self._frame = 0

    def start(self, setup: child.Setup) -> None:
        """Tell the policy and the key, and wait until it has shut itself in.

        Raises
        ------
        Died
        """
        until = time.monotonic() + START_SECONDS
        try:
            self._send(setup.as_json(), b"", until)
            ready = bytes(self._receive(len(child.READY), until))
        except (Died, TimeoutError):
            ready = b""
        if ready != child.READY:
            self.end()
            raise Died

    def at_rest(self) -> bool:
        """Say whether it lives and has nothing to say unasked."""
        return self._peek() is None

    def _peek(self) -> bytes | None:
        """Return what lies there unread: `None` for nothing, b"" where the other end is closed."""
        self._connection.settimeout(0)
        try:
            return self._connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""

    def ask(self, request: child.Request, data: bytes, until: float) -> None:
        """Hand over a request.

        Parameters
        ----------
        request, data
            What is wanted of which file.
        until
            On the monotonic clock.

        Raises
        ------
        TimeoutError, Died
        """
        self.busy = True
        self._request, self._frame = request, 0
        self._send(json.dumps(asdict(request)).encode(), data, until)

    def image(self, until: float) -> Image:
        """Return the next image of the request.

        Raises
        ------
        InvalidInput
            The worker refuses the file.
        TimeoutError, Died, Nonsense
        """
        head = self._receive(child.REPLY.size, until)
        kind, self.old, text_bytes, pixel_bytes = child.REPLY.unpack(head)
        side = self._request.side
        if text_bytes > MOST_TEXT or pixel_bytes != (side * side if kind == child.IMAGE else 0):
            raise Nonsense("lengths")
        text = bytes(self._receive(text_bytes, until))
        pixels = self._receive(pixel_bytes, until)
        try:
            if kind == child.REFUSAL:
                refusal = read_refusal(text)
                self._done()
                raise refusal
            if kind != child.IMAGE:
                raise Nonsense(read_defect(text))
            image = read_image(text, pixels, side)
        except ValueError:
            # Its text quotes the reply.
            raise Nonsense("fields") from None
        self._advance(image)
        return image

    def _advance(self, image: Image) -> None:
        """Check that an image is the one whose turn it is."""
        every, last = self._request.every, image.metadata.frames
        self._frame = self._frame + 1 if every else self._request.frame or image.frame
        if image.frame != self._frame or image.frame > last:
            raise Nonsense("frame")
        if bool(image.content_sha256) != self._request.content_hash:
            raise Nonsense("content hash")
        if not every or image.frame == last:
            self._done()

    def _done(self) -> None:
        self.busy = False
        self.answered += 1

    def abandon(self) -> None:
        """Have whoever waits for it see it as `Died`; from any thread. It must be ended then."""
        self._abandoned = True
        _shut(self._connection)

    def end(self) -> int | None:
        """End the process; return how it ended, as `Nursery.end`. Calling it again does nothing."""
        if self._connection.fileno() < 0:
            return None
        # One that has closed its socket is about to end by itself.
        leaving = not self._abandoned and self._peek() == b""
        status = self._nursery.end(self.pid, at_once=not leaving)
        self._connection.close()
        return status

    def _send(self, text: bytes, data: bytes, until: float) -> None:
        head = child.REQUEST.pack(len(text), len(data))
        try:
            for part in (head + text, data):
                self._connection.settimeout(_left(until))
                self._connection.sendall(part)
        except ConnectionError:
            raise Died from None

    def _receive(self, size: int, until: float) -> bytearray:
        received = bytearray(size)
        view = memoryview(received)
        while view:
            self._connection.settimeout(_left(until))
            try:
                count = self._connection.recv_into(view)
            except ConnectionError:
                raise Died from None
            if count == 0:
                raise Died
            view = view[count:]
        return received


@contextmanager
def _without(number: signal.Signals) -> Iterator[None]:
    """Let processes that are started inside the block, and what they fork, never take a signal.

    A service manager tells all processes of a program to end at once (systemd.kill(5),
    KillMode=control-group): the decoders are to go on until their pool, which has files in hand,
    ends them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _shut(connection: socket.socket) -> None:
    """Wake whoever waits at a socket, on both ends."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # The other end is gone, or it was closed before.
        return
