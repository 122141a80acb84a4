"""A trained network as it lies in a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dafh.errors import InvalidInput, Reason
from dafh.model.network import Dafh
from dafh.training.weights import WEIGHTS_FILE, load_network

CHECKPOINT_FILE = WEIGHTS_FILE


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
    network, classes, side = load_network(path)
    return Checkpoint(network, classes, side)
