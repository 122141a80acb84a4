"""The training loop: changed views of each image, resumable after every epoch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric, seed_everything
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from dafh.evaluation.metrics import mean_average_precision
from dafh.model.losses import Objective, total
from dafh.model.network import Dafh
from dafh.training.augment import augment
from dafh.training.manifest import Entry, hold_out, load_images
from dafh.training.settings import Recipe

VALIDATION_BITS = 48
VALIDATE_EVERY = 4


class Stateful(Protocol):
    """A part of a run that is saved and taken up again."""

    def state_dict(self) -> dict[str, Any]:
        """Return what to save."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Take up what was saved."""
        ...


def train(
    entries: list[Entry],
    run: Path,
    recipe: Recipe,
    extra: NDArray[np.uint8] | None = None,
    report: Callable[[dict[str, float]], None] = lambda _: None,
    init: Path | None = None,
) -> None:
    """Train on `entries` and write the run's checkpoint, classes and metrics.

    Parameters
    ----------
    entries
        The train split; a validation part is cut off it.
    run
        Folder of the run; an interrupted run found in it goes on after its last epoch.
    recipe
        How to train.
    extra
        uint8 ``[N, 1, S, S]``, images without a class that take part in the views term only.
    report
        Called with each epoch's figures.
    init
        Weights (safetensors) of a network of the same shape to start from.
    """
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.json").write_text(recipe.model_dump_json(indent=2) + "\n")
    seed_everything(recipe.seed, verbose=False)
    data = _load(entries, recipe, extra)
    learner = Learner(data, recipe)
    if init is not None:
        learner.network.load_state_dict(load_file(init))
    for epoch in range(_resume(run, learner), recipe.epochs):
        started = time.monotonic()
        figures = {"epoch": float(epoch), **learner.epoch(epoch)}
        if epoch % VALIDATE_EVERY == VALIDATE_EVERY - 1 or epoch == recipe.epochs - 1:
            figures["validation_map"] = learner.validate()
        figures["seconds"] = time.monotonic() - started
        _save(run, learner, epoch)
        with (run / "metrics.jsonl").open("a") as stream:
            stream.write(json.dumps(figures) + "\n")
        report(figures)


@dataclass(frozen=True, slots=True)
class Data:
    """A training set in memory."""

    classes: list[str]
    #: uint8 ``[N, 1, S, S]``.
    images: NDArray[np.uint8]
    #: int64 ``[N]``; -1 where an image has no class.
    labels: NDArray[np.int64]
    held_images: NDArray[np.uint8]
    held_labels: NDArray[np.int64]


def _load(entries: list[Entry], recipe: Recipe, extra: NDArray[np.uint8] | None) -> Data:
    kept, held = hold_out(entries, recipe.validation)
    classes = sorted({entry.class_name for entry in entries})
    numbers = {name: number for number, name in enumerate(classes)}
    images = load_images(kept, recipe.side)
    labels = np.array([numbers[entry.class_name] for entry in kept])
    if extra is not None:
        images = np.concatenate([images, extra])
        labels = np.concatenate([labels, np.full(len(extra), -1)])
    return Data(
        classes,
        images,
        labels,
        load_images(held, recipe.side),
        np.array([numbers[entry.class_name] for entry in held]),
    )


class Learner:
    """Network, objective and optimiser of a run.

    Parameters
    ----------
    data
        What to learn from.
    recipe
        How.
    """

    def __init__(self, data: Data, recipe: Recipe) -> None:
        self.data, self.recipe = data, recipe
        self.fabric = Fabric(accelerator="auto", devices=1, precision="bf16-mixed")
        self.network = Dafh(len(data.classes)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
        self.objective = Objective(len(data.classes), recipe.weights).to(self.fabric.device)
        optimizer = torch.optim.AdamW(
            [*self.network.parameters(), *self.objective.parameters()],
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
        )
        self.steps = len(data.images) // recipe.batch
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.learning_rate, total_steps=recipe.epochs * self.steps, pct_start=0.15
        )
        self.wrapped, self.optimizer = self.fabric.setup(self.network, optimizer)

    def parts(self) -> dict[str, Stateful]:
        """Return what must be saved to go on."""
        return {
            "network": self.network,
            "objective": self.objective,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
        }

    def epoch(self, number: int) -> dict[str, float]:
        """Train one epoch; return the mean of each term."""
        sums: dict[str, float] = {}
        # Stochastic depth draws from the global generator: an epoch must not depend on the last.
        torch.manual_seed(self.recipe.seed * 100_003 + number)
        self.wrapped.train()
        for images, labels, sources, generator in _batches(self.data, self.recipe, number):
            again = torch.cat([torch.arange(self.recipe.batch), torch.arange(self.recipe.pairs)])
            views = augment(images[again], generator).to(self.fabric.device)
            outputs = self.wrapped(views.contiguous(memory_format=torch.channels_last))
            terms: dict[str, Tensor] = self.objective(
                outputs,
                labels[again].to(self.fabric.device),
                sources[again].to(self.fabric.device),
            )
            self.optimizer.zero_grad()
            self.fabric.backward(total(terms))
            self.fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=5.0)
            self.optimizer.step()
            self.schedule.step()
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term.item() / self.steps
        return sums

    def validate(self) -> float:
        """Return the MAP@10 of the held-out images against the training images."""
        self.network.eval()
        labelled = self.data.labels >= 0
        names = np.array(self.data.classes)
        return mean_average_precision(
            hash_images(self.network, self.data.held_images, VALIDATION_BITS),
            names[self.data.held_labels].tolist(),
            hash_images(self.network, self.data.images[labelled], VALIDATION_BITS),
            names[self.data.labels[labelled]].tolist(),
        ).macro


def _batches(
    data: Data, recipe: Recipe, epoch: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, torch.Generator]]:
    """Draw one epoch: images, labels and numbers of ``batch`` images a step."""
    random = np.random.default_rng([recipe.seed, epoch])
    generator = torch.Generator().manual_seed(int(random.integers(2**62)))
    # The square root is a compromise: full balance would show the rarest image ten times as often.
    share = 1 / np.sqrt(np.bincount(data.labels + 1)[data.labels + 1])
    order = random.choice(len(data.labels), len(data.labels), p=share / share.sum())
    for start in range(0, len(order) - recipe.batch + 1, recipe.batch):
        chosen = order[start : start + recipe.batch]
        yield (
            torch.from_numpy(data.images[chosen]),
            torch.from_numpy(data.labels[chosen]),
            torch.from_numpy(chosen),
            generator,
        )


@torch.no_grad()
def hash_images(
    network: torch.nn.Module, images: NDArray[np.uint8], bits: int
) -> NDArray[np.float32]:
    """Return the hash outputs float32 ``[N, bits]`` of uint8 images ``[N, 1, S, S]``."""
    device = next(network.parameters()).device
    parts = [
        network(torch.from_numpy(part).to(device)).hashes[bits].float().cpu().numpy()
        for part in np.array_split(images, max(1, len(images) // 128))
    ]
    return np.concatenate(parts)


def _save(run: Path, learner: Learner, epoch: int) -> None:
    last = run / "last.pt"
    states = {name: part.state_dict() for name, part in learner.parts().items()}
    torch.save({"epoch": epoch, **states}, last.with_suffix(".part"))
    last.with_suffix(".part").replace(last)
    weights = {name: value.contiguous() for name, value in states["network"].items()}
    described = {"classes": json.dumps(learner.data.classes), "side": str(learner.recipe.side)}
    save_file(weights, run / "model.safetensors", metadata=described)


def _resume(run: Path, learner: Learner) -> int:
    """Take up the run's last state; return the epoch to go on with."""
    last = run / "last.pt"
    if not last.exists():
        return 0
    saved = torch.load(last, map_location="cpu", weights_only=True)
    for name, part in learner.parts().items():
        part.load_state_dict(saved[name])
    return int(saved["epoch"]) + 1
