"""The second stage of a run: fusion, heads and classifier once more, on features of many views.

What precedes fusion stays as it is, so an image costs next to nothing, batches can be large, and
the whole stage takes a minute.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dafh.model.hashing import HashHead, Ptanh
from dafh.model.losses import Objective, total
from dafh.model.network import STAGES, Dafh
from dafh.model.terms import Targets
from dafh.training.augment import augment
from dafh.training.data import UNLABELLED, Data, draw_twice
from dafh.training.device import autocast, best_device
from dafh.training.rate import learning_rate
from dafh.training.settings import RECIPE_FILE, Recipe, Refit
from dafh.training.validation import BATCH, Figures, validate
from dafh.training.weights import (
    FIRST_STAGE_FILE,
    WEIGHTS_FILE,
    described,
    load_network,
    save_weights,
)
from dafh.writing import OPEN, written

FIGURES_FILE = "refit.json"


def refit(
    data: Data, run: Path, recipe: Recipe, report: Callable[[Figures], None] = lambda _: None
) -> None:
    """Make the run's weights of those that its first stage left: by the second, if there is one.

    Nothing happens where they are made of these weights by this recipe already. Killed, the stage
    starts again: it takes minutes.
    """
    first, weights, stage = run / FIRST_STAGE_FILE, run / WEIGHTS_FILE, recipe.refit
    made_from = hashlib.sha256(first.read_bytes() + recipe.model_dump_json().encode()).hexdigest()
    if weights.exists() and described(weights).get("made_from") == made_from:
        return
    started = time.monotonic()
    network, classes, side = load_network(first)
    (run / FIGURES_FILE).unlink(missing_ok=True)
    if stage is not None:
        network.to(best_device())
        features = _features(network, data, recipe, stage)
        _train(network, features, data, recipe, stage)
        _steepen(network, features[-1][data.labels != UNLABELLED])
        figures = validate(network, data)
        figures["seconds"] = time.monotonic() - started
        with written(run / FIGURES_FILE, OPEN) as stream:
            stream.write(f"{json.dumps(figures, indent=2)}\n".encode())
        report(figures)
    with written(run / RECIPE_FILE, OPEN) as stream:
        stream.write(f"{recipe.model_dump_json(indent=2)}\n".encode())
    save_weights(weights, network, classes, side, made_from)


def _features(network: Dafh, data: Data, recipe: Recipe, stage: Refit) -> NDArray[np.float16]:
    """Return pooled features ``[views + 1, N, channels]``, of the unchanged images last."""
    channels = sum(STAGES[place] for place in network.stages)
    generator = torch.Generator().manual_seed(recipe.seed * 100_043)
    features = np.empty((stage.views + 1, len(data.images), channels), np.float16)
    for view in range(stage.views + 1):
        for start in range(0, len(data.images), BATCH):
            images = torch.from_numpy(np.array(data.images[start : start + BATCH]))
            shown = augment(images, generator) if view < stage.views else images
            features[view, start : start + BATCH] = _pool(network, shown)
    return features


@torch.no_grad()
def _pool(network: Dafh, images: Tensor) -> NDArray[np.float16]:
    device = next(network.parameters()).device
    with autocast(device):
        pooled = torch.cat(network.pool(images.to(device)), dim=1)
    features: NDArray[np.float16] = pooled.cpu().half().numpy()
    return features


def _train(
    network: Dafh, features: NDArray[np.float16], data: Data, recipe: Recipe, stage: Refit
) -> None:
    torch.manual_seed(recipe.seed * 100_003 + recipe.epochs)
    random = np.random.default_rng([recipe.seed, recipe.epochs])
    device = next(network.parameters()).device
    objective = Objective(len(data.classes), network.architecture.bits, stage.weights).to(device)
    learnt = (network.project, network.fuse, network.heads, network.classifier, objective)
    optimizer = torch.optim.AdamW(
        [parameter for module in learnt for parameter in module.parameters()],
        weight_decay=stage.weight_decay,
    )
    widths = [STAGES[place] for place in network.stages]
    for module in learnt:
        module.train()
    for epoch in range(stage.epochs):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(stage.learning_rate, stage.warm_up, epoch / stage.epochs)
        for sources in draw_twice(data, stage.batch, stage.unlabelled, random):
            views = random.integers(0, len(features), len(sources))
            pooled = torch.from_numpy(features[views, sources].astype(np.float32))
            fused = network.meet(torch.split(pooled.to(device), widths, dim=1))
            labels = torch.from_numpy(data.labels[sources])
            targets = Targets(labels, labels, 1.0, torch.from_numpy(sources))
            loss = total(objective(network.tell(fused), targets.to(device)))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
            optimizer.step()
    network.eval()


@torch.no_grad()
def _steepen(network: Dafh, features: NDArray[np.float16]) -> None:
    """Set each Ptanh so that its inputs' root mean square becomes 1.

    The terms that compare directions do not see how long a hash output is, so nothing keeps the
    steepness from vanishing with the weight decay. No sign changes, but the outputs spread over
    (-1, 1) again, where the asymmetric distance says something.
    """
    if not network.architecture.ptanh:
        return
    widths = [STAGES[place] for place in network.stages]
    pooled = torch.from_numpy(features.astype(np.float32))
    device = next(network.parameters()).device
    fused = network.meet(torch.split(pooled.to(device), widths, dim=1))
    for head in network.heads:
        assert isinstance(head, HashHead)  # noqa: S101 - for the type checker
        assert isinstance(head.squash, Ptanh)  # noqa: S101 - as well
        length = head.norm(head.project(fused)).square().mean().sqrt()
        head.squash.log_steepness.copy_(-length.log())
