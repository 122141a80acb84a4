"""A trained network as it lies in a run folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file

from dafh.errors import InvalidInput, Reason
from dafh.model.network import Dafh

CHECKPOINT_FILE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A network in evaluation mode and what it was trained for."""

    network: Dafh
    classes: tuple[str, ...]
    side: int


def load_checkpoint(run: Path) -> Checkpoint:
    """Read the network of a run.

    Raises
    ------
    InvalidInput
        The folder holds no checkpoint.
    """
    path = run / CHECKPOINT_FILE
    if not path.is_file():
        raise InvalidInput(
            Reason.ARGUMENT_INVALID,
            f"{run} holds no {CHECKPOINT_FILE}.",
            remedy="Name a folder that `dafh train` wrote.",
        )
    with safe_open(path, "pt") as file:
        described = file.metadata()
    classes = tuple(json.loads(described["classes"]))
    network = Dafh(len(classes))
    network.load_state_dict(load_file(path))
    return Checkpoint(network.eval(), classes, int(described["side"]))
