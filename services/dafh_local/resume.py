"""What `dafh up` has to bring about: the stack that runs, made whole, or a new one."""

from __future__ import annotations

from pathlib import Path

from dafh.errors import Misconfigured, Reason
from dafh.stack import Stack
from dafh_local.environment import TritonEnvironment
from dafh_local.plan import Plan, Ports, PortsWanted
from dafh_local.ports import port_of
from dafh_local.settings import LocalSettings
from dafh_local.status import running_note


def make_plan(
    data_dir: Path, settings: LocalSettings, wanted: PortsWanted, model: int | None
) -> Plan:
    """Return the plan of the stack that runs from `data_dir`, else a new one.

    Raises
    ------
    Misconfigured
        ALREADY_RUNNING: what runs has other ports or another model than was asked for.
    """
    note = running_note(data_dir)
    defaults = Ports(
        gateway=settings.gateway_port,
        triton=settings.triton_port,
        triton_metrics=settings.triton_metrics_port,
        milvus=settings.milvus_port,
    )
    ports = noted_ports(note) if note else wanted.choose(defaults)
    version = note.model_version if note else model or settings.model_version
    if not wanted.allow(ports) or model not in {None, version}:
        raise Misconfigured(
            Reason.ALREADY_RUNNING,
            f"A stack with other ports or another model already runs from {data_dir}.",
            remedy="Stop it with `dafh down`, or name another data directory with --data-dir.",
        )
    return Plan(
        data_dir=data_dir,
        ports=ports,
        environment=TritonEnvironment(settings.triton_home.expanduser().resolve()),
        model_repository=settings.model_repository.expanduser().resolve(),
        model_version=version,
        bits=note.bits if note else settings.bits,
    )


def noted_ports(note: Stack) -> Ports:
    """Return the ports that a note names."""
    return Ports(
        gateway=port_of(note.gateway.address),
        triton=port_of(note.triton.address),
        triton_metrics=port_of(note.triton_metrics),
        milvus=port_of(note.milvus.address),
    )
