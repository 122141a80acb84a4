"""A network's weights as a file: safetensors, with what is needed to build the network again."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save

from dafh.model.network import Architecture, Dafh
from dafh.writing import OPEN, written

WEIGHTS_FILE = "model.safetensors"
#: Of a run, as its first stage leaves them.
FIRST_STAGE_FILE = "first-stage.safetensors"


def save_weights(
    path: Path, network: Dafh, classes: tuple[str, ...], side: int, made_from: str = ""
) -> None:
    """Write a network, and what tells of which weights it was made; the file is whole or absent."""
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    described = {
        "classes": json.dumps(classes),
        "side": str(side),
        "architecture": network.architecture.model_dump_json(),
        "made_from": made_from,
    }
    with written(path, OPEN) as stream:
        stream.write(save(weights, metadata=described))


def described(path: Path) -> dict[str, str]:
    """Return what a file of weights says of itself."""
    with safe_open(path, "pt") as file:
        told: dict[str, str] = file.metadata()
    return told


def load_network(path: Path) -> tuple[Dafh, tuple[str, ...], int]:
    """Return a network in evaluation mode, its classes, and the side of its input."""
    told = described(path)
    classes = tuple(json.loads(told["classes"]))
    # Version 1 was written before there was a choice.
    network = Dafh(len(classes), Architecture.model_validate_json(told.get("architecture", "{}")))
    network.load_state_dict(load_file(path))
    return network.eval(), classes, int(told["side"])
