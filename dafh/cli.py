"""The command ``dafh``: subcommands from the entry points ``dafh.commands``, loaded when called.

Exit codes: 0 done; 1 done, and the answer is no (a process is down, `encode` refused a file); 2
wrong usage or set-up; 3 input that can never work; 4 something does not answer or a disk is full,
try again; 5 the system is not in the needed state; 70 a defect of DAFH; 75 a job was told to stop:
run it again, it goes on; 130 interrupted.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated

import typer

from dafh.errors import (
    Conflict,
    DafhError,
    DeadlineExceeded,
    Denied,
    FailedPrecondition,
    Internal,
    InvalidInput,
    Misconfigured,
    NotFound,
    Outdated,
    Overloaded,
    Reason,
    Unauthenticated,
    Unavailable,
    Unsupported,
)

GROUP = "dafh.commands"
Command = Callable[..., None]
EXIT_CODES: dict[type[DafhError], int] = {
    Misconfigured: 2,
    InvalidInput: 3,
    NotFound: 3,
    Conflict: 3,
    Outdated: 5,
    Unsupported: 3,
    Unauthenticated: 3,
    Denied: 3,
    Overloaded: 4,
    Unavailable: 4,
    DeadlineExceeded: 4,
    FailedPrecondition: 5,
    Internal: 70,
}
#: What to install for a command, or for the commands of an import package.
EXTRAS = {
    "data": "data",
    "train": "train",
    "evaluate": "evaluate",
    "dafh": "imaging",
    "dafh_export": "export",
    "dafh_jobs": "jobs",
    "dafh_local": "local",
}


def build(arguments: list[str]) -> typer.Typer:
    """Return the application with the command that `arguments` name, or with all for the help."""
    app = typer.Typer(
        help="Find the past cases that look like this image.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def root() -> None:
        """Find the past cases that look like this image."""

    installed = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
    named = [entry for entry in installed if entry.name in arguments[:1]]
    for entry in named or installed:
        loaded = _load(entry)
        if isinstance(loaded, typer.Typer):
            app.add_typer(loaded, name=entry.name)
        else:
            app.command(entry.name, context_settings=getattr(loaded, "context_settings", None))(
                loaded
            )
    return app


def _load(entry: EntryPoint) -> Command | typer.Typer:
    """Import a command; one whose extra is missing explains itself when it is run."""
    try:
        loaded: Command | typer.Typer = entry.load()
        return loaded
    except ModuleNotFoundError as error:
        missing = error.name
    extra = EXTRAS.get(entry.name) or EXTRAS[entry.module.split(".")[0]]

    def explain(words: Annotated[list[str] | None, typer.Argument(hidden=True)] = None) -> None:
        del words
        raise Misconfigured(
            Reason.NOT_INSTALLED,
            f"`dafh {entry.name}` needs the Python package {missing}, which is not installed.",
            remedy=f"Run `pip install 'dafh[{extra}]'`.",
        )

    explain.__doc__ = f"(not installed: needs dafh[{extra}])"
    vars(explain)["context_settings"] = {"ignore_unknown_options": True}
    return explain


def main() -> None:
    """Run the command line; turn an error into one sentence and an exit code."""
    try:
        build(sys.argv[1:])()
    except DafhError as error:
        sys.stderr.write(f"dafh: {error}\n")
        sys.exit(exit_code(error))
    except Exception as error:  # noqa: BLE001 - whatever else comes up to here is a defect
        # Where, and not what: the text of a foreign error may name a patient's file.
        frames = "".join(traceback.format_tb(error.__traceback__))
        what = type(error).__name__
        sys.stderr.write(
            f"{frames}dafh: A defect ({what}); please report it with the lines above.\n"
        )
        sys.exit(EXIT_CODES[Internal])


def exit_code(error: DafhError) -> int:
    """Return what a scheduler is told of an error."""
    # A set-up that heals, as what does not answer.
    return 4 if error.reason is Reason.DISK_FULL else EXIT_CODES[type(error)]
