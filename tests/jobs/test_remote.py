"""Object stores are sources; one that is silent, away or moody ends nothing and holds nobody up."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from dafh.errors import DafhError, InvalidInput, Misconfigured, Unavailable
from dafh.imaging.phantom import Phantom
from dafh_jobs.sources import Labels, check, store_call
from dafh_jobs.stopping import Abandoned, Stopping
from tests.jobs.reading import MOST, bytes_of, dicomdir, found, unreadable


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a store that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def serve() -> Iterator[Callable[[int], str]]:
    """Return what starts a store that answers everything with one status."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int) -> str:
        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_HEAD = answer  # noqa: N815 - named as http.server wants them

            def log_message(self, *words: object) -> None:
                del words

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_object_store_is_a_source(made: list[Phantom]) -> None:
    store = fsspec.filesystem("memory")
    for number, one in enumerate(made):
        store.pipe(f"/bucket/{number % 2}/{number}", one.data)
    store.pipe("/bucket/manifest.csv", b"file,label\n0/2,x\n")
    read = found("memory://bucket")
    assert len(read) == 5
    assert {one.data for one in made} < set(bytes_of(read))
    (listed,) = found("memory://bucket/manifest.csv")
    assert listed.read(MOST).beginning == made[2].data
    assert listed.labels == Labels("x")
    check(["memory://bucket"])
    with pytest.raises(InvalidInput):
        check(["memory://other"])


def test_a_dicomdir_in_an_object_store_names_files_there(made: list[Phantom]) -> None:
    store = fsspec.filesystem("memory")
    store.pipe("/disc/D0/I0", made[0].data)
    store.pipe("/disc/DICOMDIR", dicomdir([["D0", "I0"], ["D0", "I1"]]))
    assert unreadable(found("memory://disc/DICOMDIR")) == 1
    read = found("memory://disc")
    # The directory itself, what is there, and what is not.
    assert (len(read), unreadable(read)) == (3, 1)


def test_what_a_store_refuses_is_reported_without_its_address(
    made: list[Phantom], monkeypatch: pytest.MonkeyPatch
) -> None:
    class StoreError(Exception):
        """As the libraries of stores have them: no `OSError`, and the address in its text."""

    store = fsspec.filesystem("memory")
    for place in ("open/1", "open/NAME^CNRY", "closed/2", "last/3"):
        store.pipe(f"/moody/{place}", made[0].data)
    listing, opening = MemoryFileSystem.ls, MemoryFileSystem._open

    def ls(self: MemoryFileSystem, path: str, **options: Any) -> Any:  # noqa: ANN401 - as fsspec's
        if path.endswith("closed"):
            raise StoreError(path)
        return listing(self, path, **options)

    def _open(self: MemoryFileSystem, path: str, *words: Any, **options: Any) -> Any:  # noqa: ANN401 - as fsspec's
        if path.endswith("CNRY"):
            raise StoreError(path)
        return opening(self, path, *words, **options)

    monkeypatch.setattr(MemoryFileSystem, "ls", ls)
    monkeypatch.setattr(MemoryFileSystem, "_open", _open)
    read = found("memory://moody")
    assert (len(read), unreadable(read)) == (4, 2)
    for entry in (read[0], read[-1]):
        with pytest.raises(OSError, match="StoreError") as refused:
            entry.read(MOST)
        assert "moody" not in str(refused.value)
    monkeypatch.setattr(MemoryFileSystem, "info", ls)
    with pytest.raises(Unavailable, match="Source 1 of 1"):
        check(["memory://moody/closed"])


def test_a_store_that_does_not_answer_is_away(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_call, "ANSWER_S", 0.3)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="a store does not answer"):
        check([f"{silent}/x"])
    assert unreadable(found(f"{silent}/x")) == 1
    assert time.monotonic() - began < 5


def test_a_file_whose_bytes_do_not_come_is_unreadable(
    made: list[Phantom], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    store = fsspec.filesystem("memory")
    store.pipe("/slow/1", made[0].data)
    opening = MemoryFileSystem._open

    def _open(self: MemoryFileSystem, path: str, *words: Any, **options: Any) -> Any:  # noqa: ANN401 - as fsspec's
        stream = opening(self, path, *words, **options)
        stream.read = lambda _: gate.wait(20) and b""
        return stream

    monkeypatch.setattr(MemoryFileSystem, "_open", _open)
    monkeypatch.setattr(store_call, "ANSWER_S", 0.3)
    (file,) = found("memory://slow")
    began = time.monotonic()
    with pytest.raises(OSError, match="does not answer"):
        file.read(MOST)
    gate.set()
    assert time.monotonic() - began < 5


def test_told_to_stop_nobody_waits_for_a_silent_store(silent: str) -> None:
    stopping = Stopping()
    stopping.begun = True
    began = time.monotonic()
    with stopping.by_signals():
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(Abandoned):
            found(f"{silent}/x")
    assert time.monotonic() - began < 5


def test_a_store_that_is_away_is_not_one_that_holds_nothing(serve: Callable[[int], str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        away = f"http://127.0.0.1:{closed.getsockname()[1]}/x"
    for word in (away, f"{serve(503)}/x", f"{serve(403)}/x"):
        with pytest.raises(Unavailable, match="cannot be looked at"):
            check([word])
    for status in (404, 410):
        with pytest.raises(InvalidInput, match="nothing at source"):
            check([f"{serve(status)}/x"])
    check([f"{serve(200)}/x"])


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("s3://user:secret@bucket/x", InvalidInput),
        ("http://images.example/x", Misconfigured),
        ("nonsense://x/y", Misconfigured),
        ("http://[::1", InvalidInput),
        ("https://secret@images.example/x", InvalidInput),
        ("https://images.example/x?sig=secret", InvalidInput),
        ("simplecache::http://images.example/secret", InvalidInput),
        ("zip://a.zip::http://images.example/secret", InvalidInput),
        ("filecache::ftp://images.example/secret", InvalidInput),
        ("tar://::http://images.example/secret", InvalidInput),
        ("generic://http://images.example/secret", InvalidInput),
    ],
)
def test_an_address_that_would_tell_secrets_is_refused(word: str, error: type[DafhError]) -> None:
    with pytest.raises(error) as refused:
        check([word])
    assert "secret" not in str(refused.value)
