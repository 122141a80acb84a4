"""The three parts of a stack, in the order in which they start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dafh_local import gateway, milvus, triton
from dafh_local.environment import MILVUS_REPAIR, TRITON_REPAIR
from dafh_local.health import is_serving, milvus_answers
from dafh_local.plan import Plan, Ports
from dafh_local.process import Command


@dataclass(frozen=True, slots=True)
class Part:
    """One server of a stack."""

    name: str
    #: What it is called in sentences.
    title: str
    #: The ports it listens on, by option; the first one is where it is asked.
    ports: dict[str, Callable[[Ports], int]]
    command: Callable[[Plan], Command]
    #: Asks the server at an address, at most so many seconds: does it serve? Raises Unavailable.
    ask: Callable[[str, float], bool]
    #: The command that installs it anew.
    repair: str
    #: Seconds that it has to finish work in hand when it is stopped.
    grace: float

    def port(self, ports: Ports) -> int:
        """Return the port on which the server is asked."""
        return next(iter(self.ports.values()))(ports)


TRITON = Part(
    name="triton",
    title="Triton",
    ports={
        "--triton-port": lambda ports: ports.triton,
        "--triton-metrics-port": lambda ports: ports.triton_metrics,
    },
    command=triton.command,
    ask=lambda address, seconds: is_serving(address, "", seconds),
    repair=TRITON_REPAIR,
    grace=triton.EXIT_SECONDS + 5.0,
)
MILVUS = Part(
    name="milvus",
    title="Milvus",
    ports={"--milvus-port": lambda ports: ports.milvus},
    command=milvus.command,
    ask=milvus_answers,
    repair=MILVUS_REPAIR,
    grace=5.0,
)
GATEWAY = Part(
    name="gateway",
    title="the gateway",
    ports={"--port": lambda ports: ports.gateway},
    command=gateway.command,
    ask=lambda address, seconds: is_serving(address, gateway.SERVICE, seconds),
    repair="pip install --force-reinstall --no-deps grpcio",
    grace=15.0,
)

#: Each stands on those before it.
PARTS = (TRITON, MILVUS, GATEWAY)
