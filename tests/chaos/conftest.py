"""A gateway on a Triton and a Milvus Lite of its own, each of which may be ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dafh.client import Client, Target
from dafh.security.keys import create_key
from dafh_gateway.server import Gateway
from dafh_gateway.settings import GatewaySettings
from tests.chaos.triton import Triton
from tests.index.servers import LiteServer


@dataclass
class Site:
    """Servers, and gateways on them."""

    triton: Triton
    milvus: LiteServer
    folder: Path
    running: ExitStack

    def values(self, **other: Any) -> dict[str, Any]:  # noqa: ANN401 - any setting
        """Return settings of a gateway on these servers."""
        return {
            "triton_address": self.triton.address,
            "milvus_uri": self.milvus.endpoint.uri,
            "patient_key_file": self.folder / "patient.key",
            "audit": False,
        } | other

    def settings(self, **other: Any) -> GatewaySettings:  # noqa: ANN401 - any setting
        """Return the settings of a gateway on these servers, on a free port."""
        return GatewaySettings(**({"listen": "127.0.0.1:0"} | self.values(**other)))

    def gateway(self, **settings: Any) -> Gateway:  # noqa: ANN401 - any setting
        made = Gateway(self.settings(**settings))
        self.running.callback(made.stop)
        return made

    def client(self, gateway: Gateway, timeout: float = 60, *, retry: bool = False) -> Client:
        target = Target(f"127.0.0.1:{gateway.port}", retry=retry)
        return self.running.enter_context(Client(target, timeout=timeout))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "triton").mkdir()
    (folder / "milvus").mkdir()
    create_key(folder / "patient.key")
    with Triton(folder / "triton") as triton, LiteServer(folder / "milvus") as milvus:
        yield Site(triton, milvus, folder, ExitStack())


@pytest.fixture
def site(servers: Site) -> Iterator[Site]:
    with ExitStack() as running:
        servers.running = running
        yield servers
