"""``dafh audit``: what can be done with an audit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from dafh.telemetry import audit

app = typer.Typer(help="Check what was written down of calls.", no_args_is_help=True)


@app.callback()
def root() -> None:
    """Check what was written down of calls."""


@app.command()
def verify(
    paths: Annotated[
        list[Path], typer.Argument(help="Files, or folders of audit-*.jsonl.", exists=True)
    ],
) -> None:
    """Say for every chain whether it is as it was written.

    Exit codes: 0 all are whole; 1 one is broken, or there is none. A chain without an end is whole
    as far as it goes: compare its head with the last one in the log.
    """
    verdicts = audit.verify(_lines(paths))
    for one in verdicts:
        state = one.fault or ("whole" if one.closed else "whole, without an end")
        typer.echo(f"{one.chain}: {one.records} records, head {one.head}: {state}")
    if not verdicts:
        typer.echo("There is no chain.")
    raise typer.Exit(not verdicts or any(one.fault for one in verdicts))


def _lines(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        for file in sorted(path.glob("audit-*.jsonl")) if path.is_dir() else [path]:
            with file.open(errors="replace") as stream:
                yield from stream
