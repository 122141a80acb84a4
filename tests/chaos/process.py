"""A gateway as a process of its own, whose memory and files can be looked at."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from dafh.client import Client, Target
from tests.chaos.triton import UNTIL_PARENT_ENDS
from tests.index.servers import free_ports


class GatewayProcess:
    """A gateway process.

    Parameters
    ----------
    log
        Its output.
    settings
        Of `GatewaySettings`.
    """

    def __init__(self, log: Path, **settings: Any) -> None:  # noqa: ANN401 - any setting
        self.log = log
        (self.port,) = free_ports(1)
        self._settings = {"listen": self.address, "audit": False} | settings
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        words = [
            f"DAFH_{name.upper()}={value if isinstance(value, str | Path) else json.dumps(value)}"
            for name, value in self._settings.items()
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-c", UNTIL_PARENT_ENDS, "", "/usr/bin/env", *words,
                    sys.executable, "-P", "-m", "dafh_gateway",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        end = time.monotonic() + 60
        with Client(Target(self.address, retry=False), timeout=2) as client:
            while True:
                try:
                    client.list_models()
                    return self
                except Exception:  # noqa: BLE001 - it starts
                    assert self._process.poll() is None, self.log.read_text()[-2000:]
                    assert time.monotonic() < end, self.log.read_text()[-2000:]
                    time.sleep(0.1)

    def __exit__(self, *_exception: object) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def wait(self, seconds: float) -> int:
        """Wait until it has ended by itself; return how."""
        assert self._process is not None
        return self._process.wait(seconds)

    def status(self, name: str) -> int:
        """Return a number of ``/proc/PID/status``, such as VmRSS or VmHWM in bytes."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        (found,) = re.findall(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
        return int(found) * 1024

    def descriptors(self) -> int:
        """Return how many files it has open."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def seconds(self) -> float:
        """Return the processor seconds that it and the decoders it has ended took."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
