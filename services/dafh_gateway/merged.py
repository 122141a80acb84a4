"""The HTTP port of several gateway processes: one answer for all of them.

Each process has an HTTP port of its own on loopback, as one alone would have it. A pod is alive,
and ready, when all of its processes are; its metrics are those of all, told apart by a label.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Sequence
from http import HTTPStatus

from prometheus_client import Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dafh_gateway.http import HttpPort

#: Seconds that a process has to answer.
SECONDS = 1.0
#: Label of metrics that tells processes apart.
LABEL = "process"
#: Why calls should go elsewhere when a process does not say so itself.
SILENT = "process"


class MergedHttp:
    """Serves the HTTP port of several processes from construction until `close`.

    Parameters
    ----------
    listen
        ``host:port``.
    ports
        Of the processes' own HTTP ports, on loopback.

    Raises
    ------
    Misconfigured
        The address is taken.
    """

    def __init__(self, listen: str, ports: Sequence[int]) -> None:
        self._ports = ports
        self._port = HttpPort(listen, down=self._down, alive=self._alive, metrics=self._metrics)

    def close(self) -> None:
        """Serve no longer."""
        self._port.close()

    def _alive(self) -> bool:
        return all(_ask(port, "/livez")[0] == HTTPStatus.OK for port in self._ports)

    def _down(self) -> list[str]:
        parts: set[str] = set()
        for port in self._ports:
            status, body = _ask(port, "/readyz")
            if status != HTTPStatus.OK:
                parts.update(json.loads(body)["down"] if body else [SILENT])
        return sorted(parts)

    def _metrics(self) -> bytes:
        return generate_latest(_Texts([_ask(port, "/metrics")[1] for port in self._ports]))


class _Texts:
    """Collects what processes have told Prometheus; one that is silent has nothing to add."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self._texts = texts

    def collect(self) -> Iterator[Metric]:
        merged: dict[str, Metric] = {}
        for number, text in enumerate(self._texts):
            for family in text_string_to_metric_families(text.decode()):
                into = merged.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                into.samples += [
                    sample._replace(labels={**sample.labels, LABEL: str(number)})
                    for sample in family.samples
                ]
        yield from merged.values()


def _ask(port: int, path: str) -> tuple[int, bytes]:
    """Return status and body of a process's answer; 0 and nothing where it does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()
