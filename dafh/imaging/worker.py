"""The child side of `DecoderPool`: processes that decode for another one and can be killed.

``python -m dafh.imaging.worker``, started by the pool alone, is the zygote: it imports the decoder
once, reads no file, and forks a worker for each socket that it is sent. A worker shuts itself in,
then answers one request after another on its socket.
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import os
import re
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from struct import Struct
from traceback import walk_tb
from typing import Any, NoReturn

import cv2

from dafh.errors import InvalidInput, Reason
from dafh.imaging.codecs import load_libraries
from dafh.imaging.decode import decode, decode_all
from dafh.imaging.image import Image, PatientKeyer
from dafh.imaging.limits import MEBIBYTE, Limits, Policy
from dafh.imaging.refusal import memory_exceeded

#: What the zygote is told: an order and, to end a worker, its process id; and what it answers.
ORDER = Struct("!cq")
ANSWER = Struct("!q")
FORK, REAP, KILL = b"f", b"r", b"k"

#: What stands before a request: bytes of its JSON, bytes of the file.
REQUEST = Struct("!IQ")
#: What stands before a reply: its kind, whether the worker has grown old, bytes of its JSON, bytes
#: of the pixels.
REPLY = Struct("!c?IQ")
IMAGE, REFUSAL, DEFECT = b"i", b"r", b"d"
READY = b"!"

#: prctl(2).
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NO_NEW_PRIVS = 38

#: Open files that a worker may have.
MOST_FILES = 16
#: Bytes by which a worker may stay grown after a request before it is replaced.
MOST_GROWTH = 64 * MEBIBYTE
#: Seconds that a worker which has closed its socket gets to end, so that its signal is known.
DEATH_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Request:
    """What is wanted of a file; the fields are those of `decode`."""

    side: int
    frame: int = 1
    window: int | str = 1
    content_hash: bool = True
    #: Every frame, one reply each; `frame` does not count.
    every: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Setup:
    """What a worker is told once."""

    policy: Policy
    keyer: PatientKeyer | None

    def as_json(self) -> bytes:
        """Return what `of` reads."""
        keyer = None if self.keyer is None else [self.keyer.key.hex(), self.keyer.tenant]
        return json.dumps({"policy": asdict(self.policy), "keyer": keyer}).encode()

    @classmethod
    def of(cls, text: bytes) -> Setup:
        """Read what the pool has sent."""
        told = json.loads(text)
        policy = Policy(**{**told["policy"], "limits": Limits(**told["policy"]["limits"])})
        if told["keyer"] is None:
            return cls(policy, None)
        key, tenant = told["keyer"]
        return cls(policy, PatientKeyer(bytes.fromhex(key), tenant))


def zygote(control: socket.socket) -> None:
    """Fork and end workers as told, until whoever tells is gone."""
    load_libraries()
    # A forked copy of a thread pool has no threads.
    cv2.setNumThreads(1)
    sys.dont_write_bytecode = True
    gc.collect()
    gc.freeze()
    workers: set[int] = set()
    try:
        control.send(READY)
        _obey(control, workers)
    except ConnectionError:
        # Whoever tells is gone.
        pass
    finally:
        for pid in workers:
            _end(pid, at_once=True)


def _obey(control: socket.socket, workers: set[int]) -> None:
    while True:
        order, descriptors, _, _ = socket.recv_fds(control, ORDER.size, 1)
        if not order:
            return
        what, pid = ORDER.unpack(order)
        if what == FORK:
            pid = _fork(descriptors[0])
            if pid > 0:
                workers.add(pid)
            control.send(ANSWER.pack(pid))
        else:
            workers.remove(pid)
            control.send(ANSWER.pack(_end(pid, at_once=what == KILL)))


def _fork(descriptor: int) -> int:
    """Return the process id of a worker that serves a socket, or a negative error number."""
    own = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        pid = -(error.errno or 1)
    if pid == 0:
        _serve(socket.socket(fileno=descriptor), own)
    os.close(descriptor)
    return pid


def _end(pid: int, *, at_once: bool) -> int:
    """Return how a worker ended, as `os.waitstatus_to_exitcode` says it; end it where it has not.

    Until it is waited for here its process id is nobody else's.
    """
    patience = 0.0 if at_once else DEATH_SECONDS
    until = time.monotonic() + patience
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _serve(connection: socket.socket, parent: int) -> NoReturn:
    """Answer requests until the pool closes the socket; never returns into the zygote."""
    try:
        _confine(parent)
        setup = Setup.of(_receive(connection)[0])
        start, _ = _address_space()
        _limit(resource.RLIMIT_AS, start + setup.policy.limits.memory_bytes)
        connection.sendall(READY)
        worker = _Worker(connection, setup, start)
        while True:
            text, data = _receive(connection)
            worker.answer(Request(**json.loads(text)), data)
    finally:
        # No exit handler of the zygote's may run here, and no exception may get into its loop.
        os._exit(1)


def _confine(parent: int) -> None:
    """Give up what a decoder has no use for, for good."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for option, value in (
        (PR_SET_PDEATHSIG, signal.SIGKILL),
        (PR_SET_NO_NEW_PRIVS, 1),
        (PR_SET_DUMPABLE, 0),
    ):
        if prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        # It ended before its end could be watched.
        os._exit(1)
    # Libraries write what they think of a file: nobody is to read it.
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    os.close(null)
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, MOST_FILES),
        (resource.RLIMIT_NPROC, 0),
    ):
        _limit(limit, value)


def _limit(kind: int, value: int, *, for_good: bool = True) -> None:
    """Set a limit of setrlimit(2), or keep a lower one that was set from outside."""
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value if for_good else hard))


def _receive(connection: socket.socket) -> tuple[bytes, bytes]:
    """Return the JSON and the file of a request."""
    head = connection.recv(REQUEST.size, socket.MSG_WAITALL)
    if not head:
        os._exit(0)
    text, data = REQUEST.unpack(head)
    return (
        connection.recv(text, socket.MSG_WAITALL),
        connection.recv(data, socket.MSG_WAITALL) if data else b"",
    )


class _Worker:
    """Answers requests.

    Parameters
    ----------
    connection
        To the pool.
    setup
        What the pool has told.
    start
        Bytes of address space before the first request.
    """

    def __init__(self, connection: socket.socket, setup: Setup, start: int) -> None:
        self._connection = connection
        self._setup = setup
        self._start = start
        limits = setup.policy.limits
        #: Bytes in use above which a codec may find no room: its largest single piece has four
        #: bytes a sample.
        self._scarce = limits.memory_bytes - min(4 * limits.frame_samples, limits.memory_bytes // 2)

    def answer(self, request: Request, data: bytes) -> None:
        """Send one reply for each image, or one that says why there is none."""
        try:
            for image in self._images(request, data):
                self._reply(IMAGE, _facts(image), image.pixels.tobytes())
        except InvalidInput as refusal:
            self._reply(REFUSAL, _words(self._cleared(refusal)))
        finally:
            if (error := sys.exception()) is not None:
                # A fault of our own. Its text may quote the file: only its place is told.
                self._reply(DEFECT, _place(error))

    def _images(self, request: Request, data: bytes) -> Iterator[Image]:
        options: dict[str, Any] = {
            "side": request.side,
            "keyer": self._setup.keyer,
            "window": request.window,
            "content_hash": request.content_hash,
            "policy": self._setup.policy,
        }
        self._limit_processor()
        if not request.every:
            yield decode(data, frame=request.frame, **options)
            return
        for image in decode_all(data, **options):
            yield image
            self._limit_processor()

    def _limit_processor(self) -> None:
        """Let SIGXCPU end this process when the next frame takes too long."""
        until = math.ceil(time.process_time() + self._setup.policy.limits.seconds)
        _limit(resource.RLIMIT_CPU, until, for_good=False)

    def _cleared(self, refusal: InvalidInput) -> InvalidInput:
        """Return the refusal for what it was: codecs say "cannot decode" for want of memory too."""
        undecodable = refusal.reason is Reason.PIXELS_UNDECODABLE
        if undecodable and self._memory()[1] > self._scarce:
            return memory_exceeded(self._setup.policy.limits)
        return refusal

    def _reply(self, kind: bytes, told: object, pixels: bytes = b"") -> None:
        growth, peak = self._memory()
        old = growth > MOST_GROWTH or peak > self._scarce
        text = json.dumps(told).encode()
        self._connection.sendall(REPLY.pack(kind, old, len(text), len(pixels)) + text + pixels)

    def _memory(self) -> tuple[int, int]:
        """Return the bytes of address space added since the start: now, and at most."""
        now, most = _address_space()
        return now - self._start, most - self._start


def _facts(image: Image) -> dict[str, object]:
    """Return an image but for its pixels."""
    facts = {field.name: getattr(image, field.name) for field in fields(Image)}
    del facts["pixels"]
    return {**facts, "metadata": asdict(image.metadata)}


def _words(refusal: InvalidInput) -> dict[str, str]:
    return {
        "reason": refusal.reason,
        "message": refusal.message,
        "remedy": refusal.remedy,
        "subject": refusal.subject,
    }


def _place(error: BaseException) -> str:
    *_, (frame, line) = walk_tb(error.__traceback__)
    module = frame.f_globals.get("__name__")
    return f"{type(error).__name__} in {module}.{frame.f_code.co_name}:{line}"


def _address_space() -> tuple[int, int]:
    """Return the bytes of address space of this process, now and at most (proc(5) status)."""
    peak, size = re.findall(r"Vm(?:Peak|Size):\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(size) * 1024, int(peak) * 1024


if __name__ == "__main__":
    zygote(socket.socket(fileno=sys.stdin.fileno()))
