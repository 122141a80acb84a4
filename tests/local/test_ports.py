"""Ports are chosen free, refused when taken, and an answer on one is known to be ours."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from dafh.errors import Misconfigured, Reason
from dafh_local.plan import Ports, PortsWanted
from dafh_local.ports import FREE_RANGE, HOST, free_port, is_free, listens, require_free

DEFAULTS = Ports(gateway=1, triton=2, triton_metrics=3, milvus=4)


def listener(port: int = 0) -> socket.socket:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.bind((HOST, port))
    server.listen()
    return server


def test_port_in_use_is_refused_in_a_sentence_that_names_port_part_and_option() -> None:
    with listener() as server:
        port = server.getsockname()[1]
        assert not is_free(port)
        with pytest.raises(Misconfigured, match=f"Port {port} .* for Milvus") as caught:
            require_free(port, "Milvus", "--milvus-port")
    assert caught.value.reason is Reason.PORT_IN_USE
    assert "--milvus-port" in str(caught.value)
    assert is_free(port)


def test_port_of_a_listener_on_all_addresses_is_in_use() -> None:
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))  # noqa: S104 - what is tested
        server.listen()
        assert not is_free(server.getsockname()[1])


def test_free_port_avoids_those_already_taken() -> None:
    taken = FREE_RANGE[::2]
    assert not any(free_port(taken) in taken for _ in range(20))


def test_zero_for_the_gateway_means_free_ports_for_all_that_are_not_named() -> None:
    ports = PortsWanted(gateway=0, milvus=4444).choose(DEFAULTS)
    assert ports.milvus == 4444
    chosen = {ports.gateway, ports.triton, ports.triton_metrics}
    assert len(chosen) == 3
    assert not chosen & {0, 1, 2, 3}


def test_ports_not_named_are_the_defaults() -> None:
    assert PortsWanted(triton=9).choose(DEFAULTS) == Ports(1, 9, 3, 4)


def test_running_stack_fits_unless_another_port_was_named() -> None:
    assert PortsWanted().allow(DEFAULTS)
    assert PortsWanted(gateway=0, milvus=4).allow(DEFAULTS)
    assert not PortsWanted(milvus=5).allow(DEFAULTS)


def test_listener_of_another_process_is_not_taken_for_ours() -> None:
    with listener() as server:
        port = server.getsockname()[1]
        assert listens(port, [os.getpid()])
        assert not listens(port, [1, os.getppid()])
        script = (
            "import socket, sys; s = socket.socket();"
            "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1);"
            f"s.bind(('{HOST}', {port})); s.listen(); print(flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other:
            assert other.stdout is not None
            other.stdout.readline()
            # Both listen now, and the kernel deals connections to either.
            assert not listens(port, [os.getpid()])
            assert listens(port, [os.getpid(), other.pid])
            other.communicate()
    assert not listens(port, [os.getpid()])
