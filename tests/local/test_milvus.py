"""Milvus Lite over TCP: several clients, one writer, nothing acknowledged is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from pymilvus import DataType, MilvusClient

from dafh.errors import Unavailable
from dafh_local.health import milvus_answers
from dafh_local.ports import address, free_port, is_free

pytestmark = pytest.mark.stack


def command(database: Path, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "dafh_local.milvus"),
        *("--db", str(database), "--address", address(port)),
    ]


@contextmanager
def served(database: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command(database, port)) as server:
        try:
            wait_for(port)
            yield server
        finally:
            server.kill()


def wait_for(port: int) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            milvus_answers(address(port), 1)
        except Unavailable:
            time.sleep(0.05)
        else:
            return
    pytest.fail("Milvus did not answer")


def client(port: int) -> MilvusClient:
    return MilvusClient(f"http://{address(port)}", timeout=5)


def make_collection(port: int) -> None:
    with closing(client(port)) as milvus:
        schema = milvus.create_schema()
        schema.add_field("id", DataType.VARCHAR, max_length=32, is_primary=True)
        schema.add_field("code", DataType.BINARY_VECTOR, dim=64)
        index = milvus.prepare_index_params()
        index.add_index("code", index_type="BIN_FLAT", metric_type="HAMMING")
        milvus.create_collection("cases", schema=schema, index_params=index, timeout=5)


def upsert(port: int, name: str) -> None:
    with closing(client(port)) as milvus:
        milvus.upsert("cases", [{"id": name, "code": bytes(8)}], timeout=5)


def stored(port: int) -> set[str]:
    with closing(client(port)) as milvus:
        rows = milvus.query("cases", filter="id != ''", output_fields=["id"], timeout=5)
    return {row["id"] for row in rows}


def test_rows_of_one_client_are_seen_by_another_and_survive_kill(tmp_path: Path) -> None:
    port = free_port()
    with served(tmp_path / "x.db", port):
        make_collection(port)
        upsert(port, "first")
        script = f"""
from pymilvus import MilvusClient
client = MilvusClient("http://{address(port)}", timeout=5)
client.upsert("cases", [{{"id": "second", "code": bytes(8)}}], timeout=5)
client.close()
"""
        subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
        assert stored(port) == {"first", "second"}
    # `served` killed it with SIGKILL.
    with served(tmp_path / "x.db", port):
        assert stored(port) == {"first", "second"}


def test_second_server_on_the_same_file_is_refused(tmp_path: Path) -> None:
    database, port = tmp_path / "x.db", free_port()
    with served(database, port):
        second = subprocess.run(
            command(database, free_port()), capture_output=True, text=True, timeout=30, check=False
        )
        assert second.returncode == 2
        assert f"Another process has {database} open." in second.stderr
        assert second.stderr.count("\n") == 1


def test_sigterm_ends_it_and_frees_its_port(tmp_path: Path) -> None:
    port = free_port()
    with served(tmp_path / "x.db", port) as server:
        server.send_signal(signal.SIGTERM)
        server.wait(5)
        assert is_free(port)


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    port = free_port()
    script = f"import subprocess; subprocess.run({command(tmp_path / 'x.db', port)!r})"
    with subprocess.Popen([sys.executable, "-c", script]) as parent:
        wait_for(port)
        parent.kill()
        parent.wait(5)
        end = time.monotonic() + 5
        while not is_free(port):
            assert time.monotonic() < end
            time.sleep(0.05)


def test_file_name_that_milvus_lite_does_not_take_is_refused(tmp_path: Path) -> None:
    answer = subprocess.run(
        command(tmp_path / "a name.db", free_port()),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert answer.returncode == 2
    assert "letters, digits" in answer.stderr
