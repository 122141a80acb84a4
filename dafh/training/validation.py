"""What a network is chosen by: how well held-out images find their class among the others."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from dafh.evaluation.metrics import code_distances, cosine_distances, macro_map
from dafh.model.network import Dafh
from dafh.training.data import UNLABELLED, Data
from dafh.training.device import autocast

#: Figure that the best epoch, and the best variant of a method, are chosen by.
CHOICE = "validation_map"
#: Name of the fused features beside those of the code lengths.
FUSED = "fused"
LOGITS = "logits"
BATCH = 64

Figures = dict[str, float]


def validate(network: Dafh, data: Data) -> Figures:
    """Return the macro MAP@10 of the held-out images, which ask the training images.

    By code length, their mean (`CHOICE`), and of the fused features by cosine, the ceiling of what
    codes can keep. Leaves the network in evaluation mode.
    """
    labelled = data.labels != UNLABELLED
    names = np.array(data.classes)
    asks, answers = names[data.held_labels].tolist(), names[data.labels[labelled]].tolist()
    network.eval()
    # Or of equal codes the first class's would answer.
    turn = np.random.default_rng(0).permutation(len(answers))
    answers = [answers[place] for place in turn]
    held, known = (embed(network, images) for images in (data.held_images, data.images[labelled]))
    figures = {}
    for name in [*map(str, network.architecture.bits), FUSED]:
        distances = cosine_distances if name == FUSED else code_distances
        far = distances(held[name], known[name][turn])
        figures[f"map_{name}"] = macro_map(far, asks, answers)
    codes = [figures[f"map_{bits}"] for bits in network.architecture.bits]
    return {CHOICE: float(np.mean(codes)), **figures}


def hash_outputs(
    outputs: dict[str, NDArray[np.float32]], lengths: Iterable[int]
) -> dict[int, NDArray[np.float32]]:
    """Return of what `embed` gave the hash outputs, by length in bits."""
    return {bits: outputs[str(bits)] for bits in lengths}


@torch.no_grad()
def embed(network: Dafh, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Return hash outputs by length, fused features and logits, float32 ``[N, ...]``.

    In bfloat16 where that is fast: up to four times as fast as in float32, and the codes that it
    turns over are those that hang by a thread.
    """
    device = next(network.parameters()).device
    parts: dict[str, list[NDArray[np.float32]]] = {}
    for part in np.array_split(images, max(1, len(images) // BATCH)):
        shown = torch.from_numpy(np.array(part)).to(device)
        with autocast(device):
            outputs = network(shown)
        for name, value in (
            *outputs.hashes.items(),
            (FUSED, outputs.fused),
            (LOGITS, outputs.logits),
        ):
            parts.setdefault(str(name), []).append(value.float().cpu().numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}
