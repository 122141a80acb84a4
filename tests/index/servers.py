"""Real Milvus servers, each in a folder of its own on random ports of this machine.

Milvus Lite is what a laptop runs. The standalone server (`make setup` unpacks it) is a whole Milvus
in one process: etcd, storage and message queue included, asked for mutual TLS and passwords here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import pytest
import trustme
from pymilvus import MilvusClient, MilvusException

from dafh.deadline import Deadline
from dafh.errors import Unavailable
from dafh.index.connection import Connection
from dafh.index.endpoint import Endpoint, Tls
from dafh.index.privileges import PRIVILEGES

#: How long a server may take to answer; the standalone one waits for leases of its former life.
PATIENCE_S = 60.0

#: Below what Linux gives to clients (ip_local_port_range).
SERVER_PORTS = (10_000, 32_768)

#: Where `make setup` puts the standalone server.
STANDALONE = Path(sys.prefix) / "milvus" / "server" / "bin"

#: Becomes its arguments; the kernel ends it when its parent ends (PR_SET_PDEATHSIG).
UNTIL_PARENT_ENDS = (
    "import ctypes, os, signal, sys;"
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL);"
    "os.environ['LD_LIBRARY_PATH'] = os.path.dirname(sys.argv[1]);"
    "os.execv(sys.argv[1], sys.argv[1:])"
)

SERVER_NAME = "milvus.test"
ROOT_PASSWORD = "Root-of-this-test-1"  # noqa: S105 - of a server that lives as long as a test
USER, PASSWORD = "dafh", "Service-of-this-test-1"


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, each another.

    Not those that the kernel gives to clients: a server's own connections would take them.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(*SERVER_PORTS)  # noqa: S311 - nothing secret about it
        if port not in ports and _is_free(port):
            ports.append(port)
    return ports


def free_row(length: int) -> int:
    """Return the first of so many ports, one after the other, that nobody listens on."""
    while True:
        (first,) = free_ports(1)
        if all(_is_free(port) for port in range(first, first + length)):
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class Server(ABC):
    """A Milvus process with its own data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def endpoint(self) -> Endpoint:
        """What DAFH is given to connect."""

    @property
    def uri(self) -> Any:  # noqa: ANN401 - until every test says `endpoint`
        """The endpoint."""
        return self.endpoint

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, or start again on the same data and ports; return when it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", UNTIL_PARENT_ENDS, *self._command()],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = Deadline.after(PATIENCE_S)
        while not self._answers(deadline):
            assert self._process.poll() is None, "the server ended while it started"
            time.sleep(0.05)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.kill()

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal; on return it has stopped, where it is told to."""
        assert self._process is not None
        self._process.send_signal(number)
        if number is signal.SIGSTOP:
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _answers(self, deadline: Deadline) -> bool:
        try:
            Connection(self.endpoint, deadline).close()
        except Unavailable:
            return False
        return True

    @abstractmethod
    def _command(self) -> list[str]: ...

    def _environment(self) -> dict[str, str]:
        # Milvus Lite ends without a home.
        return {"HOME": str(self.folder)}


class LiteServer(Server):
    """A Milvus Lite process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (self.port,) = free_ports(1)

    @property
    def endpoint(self) -> Endpoint:
        """What DAFH is given to connect."""
        return Endpoint(f"http://127.0.0.1:{self.port}")

    def _command(self) -> list[str]:
        # The package itself cannot be imported without pkg_resources, which setuptools gave up.
        found = importlib.util.find_spec("milvus_lite")
        if found is None or not found.submodule_search_locations:
            pytest.skip("milvus-lite is not installed")
        program = Path(found.submodule_search_locations[0]) / "lib" / "milvus"
        return [str(program), str(self.folder / "test.db"), f"127.0.0.1:{self.port}", "ERROR"]


class StandaloneServer(Server):
    """A standalone Milvus that demands mutual TLS and a password.

    Its client port is on every interface, as are those that its parts talk to each other on: this
    version cannot be told otherwise. The client port lets nobody in without a certificate.

    Parameters
    ----------
    folder
        For its data, certificates and log.
    settings
        Written over its own configuration, section by section.
    """

    _PARTS = ("rootCoord", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode")

    def __init__(self, folder: Path, **settings: Mapping[str, Any]) -> None:
        super().__init__(folder)
        if not STANDALONE.is_dir():
            pytest.skip("the standalone Milvus is not installed (`make setup`)")
        self.port, self._metrics, *ports = free_ports(5 + len(self._PARTS))
        (folder / "configs").mkdir()
        self._write_certificates()
        self._write_settings(ports, settings)
        self._is_set_up = False

    @property
    def endpoint(self) -> Endpoint:
        """What DAFH is given to connect: as the user that may do what it needs and no more."""
        return self.endpoint_of(USER, PASSWORD)

    def endpoint_of(self, user: str, password: str) -> Endpoint:
        """Return an endpoint with other credentials."""
        credentials = self.folder / f"{user}.credentials"
        if not credentials.exists():
            credentials.touch(0o600)
            credentials.write_text(f"{user}:{password}")
        return Endpoint(
            f"https://127.0.0.1:{self.port}",
            tls=Tls(
                self.folder / "ca.pem",
                self.folder / "client.pem",
                self.folder / "client.key",
                SERVER_NAME,
            ),
            credentials=credentials,
        )

    def configure(self, **settings: Mapping[str, Any]) -> None:
        """Write over its configuration, section by section; it counts from the next start on."""
        path = self.folder / "configs" / "milvus.yaml"
        all_settings = json.loads(path.read_text())
        for section, values in settings.items():
            all_settings.setdefault(section, {}).update(values)
        path.write_text(json.dumps(all_settings, indent=1))

    def root(self, database: str = "") -> MilvusClient:
        """Return a client of the administrator."""
        return self._client("root", ROOT_PASSWORD if self._is_set_up else "Milvus", database)

    def start(self) -> None:
        """Start, or start again; the first time make the user and its role."""
        super().start()
        if not self._is_set_up:
            self._set_up()

    def _answers(self, deadline: Deadline) -> bool:
        if self._is_set_up:
            return super()._answers(deadline)
        try:
            with closing(self.root()) as root:
                root.list_users()
        except MilvusException:
            return False
        return True

    def _set_up(self) -> None:
        with closing(self.root()) as root:
            root.update_password("root", "Milvus", ROOT_PASSWORD)
        self._is_set_up = True
        with closing(self.root()) as root:
            root.create_user(USER, PASSWORD)
            root.create_role(USER)
            for kind, privilege in PRIVILEGES:
                root.grant_privilege(USER, kind, privilege, "*")
            root.grant_role(USER, USER)

    def _client(self, user: str, password: str, database: str) -> MilvusClient:
        return MilvusClient(
            f"https://127.0.0.1:{self.port}",
            user=user,
            password=password,
            db_name=database,
            ca_pem_path=str(self.folder / "ca.pem"),
            client_pem_path=str(self.folder / "client.pem"),
            client_key_path=str(self.folder / "client.key"),
            server_name=SERVER_NAME,
            timeout=PATIENCE_S,
            dedicated=True,
        )

    def _write_certificates(self) -> None:
        ca = trustme.CA()
        ca.cert_pem.write_to_path(self.folder / "ca.pem")
        for name, identity in (("server", SERVER_NAME), ("client", "dafh.test")):
            issued = ca.issue_cert(identity)
            (self.folder / f"{name}.key").touch(0o600)
            issued.private_key_pem.write_to_path(self.folder / f"{name}.key")
            issued.cert_chain_pems[0].write_to_path(self.folder / f"{name}.pem")

    def _write_settings(self, ports: list[int], more: dict[str, Mapping[str, Any]]) -> None:
        internal, etcd, peer, *parts = ports
        store, friend = f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peer}"
        here = {name: str(self.folder / name) for name in ("etcd", "data", "rocksmq")}
        settings: dict[str, dict[str, Any]] = {
            "etcd": {
                "endpoints": f"127.0.0.1:{etcd}",
                "use": {"embed": True},
                "data": {"dir": here["etcd"]},
                "config": {"path": str(self.folder / "configs" / "etcd.json")},
            },
            "localStorage": {"path": here["data"]},
            "rocksmq": {"path": here["rocksmq"]},
            "mq": {"type": "rocksmq"},
            "common": {
                "storageType": "local",
                "security": {"authorizationEnabled": True, "tlsMode": 2},
            },
            "tls": {
                "serverPemPath": str(self.folder / "server.pem"),
                "serverKeyPath": str(self.folder / "server.key"),
                "caPemPath": str(self.folder / "ca.pem"),
            },
            "log": {"level": "warn", "file": {"rootPath": ""}},
            # As in the server's own settings file; without it there are 64 to a database.
            "quotaAndLimits": {"limits": {"maxCollectionNumPerDB": 65_536}},
            "proxy": {
                "ip": "127.0.0.1",
                "port": self.port,
                "internalPort": internal,
                "http": {"enabled": False},
            },
            **{
                part: {"ip": "127.0.0.1", "port": port}
                for part, port in zip(self._PARTS, parts, strict=True)
            },
        }
        # JSON is YAML.
        configs = self.folder / "configs"
        (configs / "milvus.yaml").write_text(json.dumps(settings, indent=1))
        self.configure(**more)
        (configs / "etcd.json").write_text(
            json.dumps(
                {
                    "listen-client-urls": store,
                    "advertise-client-urls": store,
                    "listen-peer-urls": friend,
                    "initial-advertise-peer-urls": friend,
                    "initial-cluster": f"default={friend}",
                    "log-level": "error",
                    "log-outputs": [str(self.folder / "etcd.log")],
                }
            )
        )
        (configs / "glog.conf").write_text("--logtostderr=true\n--minloglevel=3\n")

    def _command(self) -> list[str]:
        return [str(STANDALONE / "milvus"), "run", "standalone"]

    def _environment(self) -> dict[str, str]:
        return super()._environment() | {
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": str(self._metrics),
            "MILVUS_RUN_DIR": str(self.folder / "run"),
        }
