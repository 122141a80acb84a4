"""A double for tests: an engine builder without TensorRT, with faults in a given order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from dafh.deadline import Deadline
from dafh_export.engine import BuildOptions, Built, Target

#: A GPU that does not exist.
TARGET = Target("11.1.0.106", "Scripted GPU")


class ScriptedBuilder:
    """Returns bytes that depend on model and options, and counts how often it was asked.

    Parameters
    ----------
    target
        What it says it builds for.
    during
        Called in the middle of each build: sleeps, dies or raises as a test wants it.
    """

    def __init__(
        self,
        target: Target = TARGET,
        during: Callable[[], None] = lambda: None,
    ) -> None:
        self._target = target
        self._during = during
        #: Number of builds that were finished.
        self.built = 0

    def target(self) -> Target:
        """Return what the test said."""
        return self._target

    def build(
        self, model_file: Path, options: BuildOptions, timing_cache: Path, deadline: Deadline
    ) -> Built:
        """Return a plan of a few kilobytes; keep a timing cache as TensorRT does."""
        deadline.remaining("the engine was built")
        self._during()
        seed = hashlib.sha256(model_file.read_bytes() + options.digest.encode()).digest()
        timing_cache.write_bytes(b"timings")
        self.built += 1
        return Built(plan=seed * 1024, log="scripted\n", layers='{"Layers": []}')
