"""``dafh up``, ``down``, ``status`` and ``doctor``."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dafh.settings import load
from dafh_local.doctor import Finding, Level, examine
from dafh_local.foreground import stay, stop_on_signal
from dafh_local.lifecycle import Interrupted, Started, start, stop_all
from dafh_local.plan import PortsWanted
from dafh_local.resume import make_plan
from dafh_local.settings import LocalSettings
from dafh_local.status import StackStatus, State, look

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where the stack keeps its state.", show_default="XDG data"),
]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Port = Annotated[
    int | None,
    typer.Option(
        "--port", min=0, max=65535, help="The gateway's port; 0: free ports for all not named."
    ),
]
TritonPort = Annotated[
    int | None, typer.Option("--triton-port", min=0, max=65535, help="0: any free one.")
]
MetricsPort = Annotated[
    int | None, typer.Option("--triton-metrics-port", min=0, max=65535, help="0: any free one.")
]
MilvusPort = Annotated[
    int | None, typer.Option("--milvus-port", min=0, max=65535, help="0: any free one.")
]
Model = Annotated[int | None, typer.Option("--model", min=1, help="Model version to serve.")]
Detach = Annotated[
    bool, typer.Option("--detach", help="Return when the stack answers; `dafh down` stops it.")
]


def up(
    data_dir: DataDir = None,
    port: Port = None,
    triton_port: TritonPort = None,
    triton_metrics_port: MetricsPort = None,
    milvus_port: MilvusPort = None,
    model: Model = None,
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Start Triton, Milvus and the gateway on this machine, or whichever of them is down.

    Stays in the foreground until Ctrl-C, SIGTERM or `dafh down`, and then leaves nothing behind;
    with --detach, returns when everything answers. Where all runs already, it says so and returns.
    Exit codes: 0 it runs (or ran until it was asked to stop); 2 it cannot start, and the message
    says why; 130 interrupted while it started.
    """
    settings = load(LocalSettings)
    folder = _resolved(data_dir, settings)
    wanted = PortsWanted(port, triton_port, triton_metrics_port, milvus_port)
    plan = make_plan(folder, settings, wanted, model)
    stopping = stop_on_signal()
    try:
        started = start(
            plan,
            start_seconds=settings.start_seconds,
            minimum_free_mib=settings.minimum_free_mib,
            stopping=stopping,
        )
    except Interrupted:
        typer.echo("Stopped while starting; what this call started runs no more.", err=True)
        raise typer.Exit(130) from None
    _tell_started(started, as_json)
    if started.parts and not detach:
        stay(folder, started, stopping, _say)


def down(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Stop the stack: work in hand is finished, then no process, port or shared memory is left.

    Exit code 0, also where nothing ran.
    """
    stopped = stop_all(_resolved(data_dir, load(LocalSettings)))
    if as_json:
        typer.echo(json.dumps({"stopped": stopped}))
    else:
        typer.echo(f"Stopped {', '.join(stopped)}." if stopped else "Nothing was running.")


def status(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Say which part of the stack runs and answers.

    Exit codes: 0 all serve; 1 one of them does not; 2 no stack runs from this data directory.
    """
    answer = look(_resolved(data_dir, load(LocalSettings)))
    if as_json:
        typer.echo(answer.model_dump_json(indent=2))
    else:
        Console().print(_status_table(answer))
        if not answer.healthy:
            typer.echo("`dafh up` starts what is down; `dafh down` stops the rest.")
    raise typer.Exit(0 if answer.healthy else 1)


def doctor(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Say what is installed and reachable, and what to do about what is not.

    Exit codes: 0 nothing is wrong; 1 something is, and the remedy stands beside it.
    """
    settings = load(LocalSettings)
    findings = examine(_resolved(data_dir, settings), settings)
    if as_json:
        typer.echo(json.dumps([finding.model_dump() for finding in findings], indent=2))
    else:
        Console().print(_findings_table(findings))
    raise typer.Exit(any(finding.level is Level.FAULT for finding in findings))


def _say(text: str) -> None:
    # A terminal that was closed must not keep the stack from being stopped.
    with suppress(OSError):
        typer.echo(text, err=True)


def _resolved(data_dir: Path | None, settings: LocalSettings) -> Path:
    return (data_dir or settings.data_dir).expanduser().resolve()


def _tell_started(started: Started, as_json: bool) -> None:
    if as_json:
        typer.echo(started.stack.model_dump_json(indent=2))
        return
    stack = started.stack
    done = f"Started {', '.join(started.parts)}." if started.parts else "Already running."
    typer.echo(
        f"{done} Gateway {stack.gateway.address}, Triton {stack.triton.address}, "
        f"Milvus {stack.milvus.address}, model version {stack.model_version}."
    )


def _status_table(answer: StackStatus) -> Table:
    table = Table("part", "state", "address", "process", box=None)
    for part in answer.parts:
        colour = "green" if part.state is State.SERVING else "red"
        pid = str(part.pid) if part.pid else ""
        table.add_row(part.name, f"[{colour}]{part.state}[/]", part.address, pid)
    return table


def _findings_table(findings: list[Finding]) -> Table:
    colours = {Level.OK: "green", Level.NOTE: "yellow", Level.FAULT: "red"}
    table = Table("", "what", "found", "to do", box=None)
    for finding in findings:
        mark = f"[{colours[finding.level]}]{finding.level}[/]"
        table.add_row(mark, finding.name, finding.found, finding.remedy)
    return table
