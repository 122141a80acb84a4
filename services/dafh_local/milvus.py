"""Milvus Lite over TCP, for several processes: ``python -m dafh_local.milvus --db --address``.

The module takes the lock of the database file and then becomes Milvus Lite's own program (exec), so
there is one process: SIGTERM ends it, and so does, unless ``--outlive-parent`` is given, the end of
whoever started it. The lock is the one that the milvus_lite package takes, so that neither a second
server nor a client that opens the file itself can write beside it.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import re
import signal
import sys
from pathlib import Path

from dafh.cli import exit_code
from dafh.errors import DafhError, Misconfigured, Reason
from dafh_local.disk import writing
from dafh_local.environment import milvus_library_path
from dafh_local.plan import Plan
from dafh_local.ports import address
from dafh_local.process import Command

#: prctl(2): the signal that a process gets when its parent ends; kept across exec.
PR_SET_PDEATHSIG = 1
#: What Milvus Lite takes as the name of a database file.
NAME = re.compile(r"[a-zA-Z0-9._-]{1,36}")


def command(plan: Plan) -> Command:
    """Return how to start Milvus for a stack."""
    return Command(
        (
            sys.executable,
            "-P",
            "-m",
            "dafh_local.milvus",
            f"--db={plan.database}",
            f"--address={address(plan.ports.milvus)}",
            "--outlive-parent",
        ),
        {},
    )


def lock_database(database: Path) -> None:
    """Take the write lock of a database file for the life of this process, across exec.

    Raises
    ------
    Misconfigured
        Another process has it, or the folder cannot be written.
    """
    with writing(database.parent):
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Never closed: the lock goes with the process.
        descriptor = os.open(
            database.with_name(f".{database.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600
        )
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Misconfigured(
            Reason.ALREADY_RUNNING,
            f"Another process has {database} open.",
            remedy="Stop it first: two writers would destroy the file.",
        ) from None
    os.set_inheritable(descriptor, True)


def die_with_parent() -> None:
    """Have the kernel end this process when the one that started it ends."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        # It ended before it could be watched.
        sys.exit(0)


def serve(database: Path, listen: str) -> None:
    """Become Milvus Lite; does not return.

    Raises
    ------
    Misconfigured
        The file is in use, or its name is not one that Milvus Lite takes.
    """
    database = database.absolute()
    if not NAME.fullmatch(database.name):
        raise Misconfigured(
            Reason.SETTING_INVALID,
            "The name of Milvus Lite's file has 1 to 36 letters, digits, '.', '-' and '_'.",
            subject="--db",
        )
    library_path = milvus_library_path()
    lock_database(database)
    os.chdir(database.parent)
    os.putenv("LD_LIBRARY_PATH", str(library_path))
    program = str(library_path / "milvus")
    os.execv(program, [program, str(database), listen, "ERROR"])  # noqa: S606 - no shell is meant


def main() -> None:
    """Serve one database file."""
    parser = argparse.ArgumentParser(prog="python -m dafh_local.milvus")
    parser.add_argument("--db", type=Path, required=True, help="database file")
    parser.add_argument("--address", required=True, help="host:port to listen on")
    parser.add_argument("--outlive-parent", action="store_true")
    options = parser.parse_args()
    try:
        if not options.outlive_parent:
            die_with_parent()
        serve(options.db, options.address)
    except DafhError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(exit_code(error))


if __name__ == "__main__":
    main()
