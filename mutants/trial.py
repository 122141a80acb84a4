"""Unit tests on a changed module, in a process of its own; no file is changed."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Sequence
from importlib.util import spec_from_file_location
from types import ModuleType

from mutants.mutations import Mutant

#: Seconds of processor time after which tests have noticed that something never ends.
LONGEST = 120
#: Imported once, before the processes of the trials are forked.
SHARED = (
    "cv2",
    "hypothesis.extra.numpy",
    "imagecodecs",
    "lark",
    "pyarrow.parquet",
    "pydantic_settings",
    "pydicom",
    "pymilvus",
    "pytest",
)


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives a mutant for the module that it is of."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find the module, and no other."""
        del path, target
        if name != self._mutant.module:
            return None
        return spec_from_file_location(name, self._mutant.path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        """Run the changed source."""
        exec(compile(self._mutant.source, self._mutant.path, "exec"), vars(module))  # noqa: S102 - that is what a loader does.


def import_shared() -> None:
    """Import what all trials need, none of which is ours."""
    for name in SHARED:
        importlib.import_module(name)


def passes(mutant: Mutant | None, tests: Sequence[str]) -> bool:
    """Say whether the tests pass with a mutant, or with the code as it is."""
    trial = multiprocessing.get_context("fork").Process(target=_run, args=(mutant, tests))
    trial.start()
    trial.join()
    return trial.exitcode == 0


def _run(mutant: Mutant | None, tests: Sequence[str]) -> None:
    import pytest

    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    resource.setrlimit(resource.RLIMIT_CPU, (LONGEST, LONGEST))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    if mutant is not None:
        sys.meta_path.insert(0, Changed(mutant))
    quiet = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    # Hypothesis is imported already, on purpose.
    quiet += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    options = ["-o", "timeout=0", "-m", "not stack and not long", "--hypothesis-seed=1"]
    os._exit(0 if pytest.main([*quiet, *options, *tests]) == 0 else 1)
