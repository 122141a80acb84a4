"""The first stage of a run: the whole network, resumable after every epoch; then the second."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric, seed_everything
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dafh.errors import InvalidInput, Reason
from dafh.model.losses import Objective, total
from dafh.model.network import Dafh
from dafh.model.terms import Targets
from dafh.training.augment import augment, blend
from dafh.training.curves import draw_curves
from dafh.training.data import UNLABELLED, Batch, Data, draw, steps_per_epoch
from dafh.training.device import best_device, precision
from dafh.training.rate import learning_rate
from dafh.training.refit import refit
from dafh.training.settings import Recipe
from dafh.training.validation import CHOICE, Figures, validate
from dafh.training.weights import FIRST_STAGE_FILE, WEIGHTS_FILE, save_weights
from dafh.writing import OPEN, written

METRICS_FILE = "metrics.jsonl"
STATE_FILE = "last.pt"
BEGUN_FILE = "begun.json"
MOST_GRADIENT = 5.0
#: Settings that a run may be gone on with in another form: how long, and what comes after.
MAY_CHANGE = ("epochs", "patience", "refit")

Tensors = tuple[Tensor, ...] | list[Tensor]


class Stateful(Protocol):
    """A part of a run that is saved and taken up again."""

    def state_dict(self) -> dict[str, Any]:
        """Return what to save."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Take up what was saved."""
        ...


def train(
    data: Data,
    run: Path,
    recipe: Recipe,
    report: Callable[[Figures], None] = lambda _: None,
    init: Path | None = None,
) -> None:
    """Train and write the run's recipe, metrics, curves and weights.

    Parameters
    ----------
    data
        What to learn from.
    run
        Folder of the run; an interrupted run found in it goes on after its last epoch.
    recipe
        How to train.
    report
        Called with each epoch's figures.
    init
        Weights (safetensors) of a network of the same shape to start from.

    Raises
    ------
    InvalidInput
        The folder has a run of more epochs, of other images, of another recipe, in another
        precision or from other weights, or `init` is none of this network's weights.
    """
    run.mkdir(parents=True, exist_ok=True)
    seed_everything(recipe.seed, verbose=False)
    learner = Learner(data, recipe)
    if init is not None:
        learner.start_from(_weights(init))
    _begin(run, learner, init)
    history = _resume(run, learner)
    if recipe.epochs < len(history):
        raise InvalidInput(
            Reason.SETTING_INVALID,
            f"The run in that folder has learnt for {len(history)} epochs already.",
            remedy=f"Say epochs = {len(history)} to end it there.",
            subject="config",
        )
    for epoch in range(len(history), recipe.epochs):
        if exhausted(history, recipe):
            break
        started = time.monotonic()
        figures = {"epoch": float(epoch), **learner.epoch(epoch)}
        if (epoch + 1) % recipe.validate_every == 0 or epoch == recipe.epochs - 1:
            figures |= validate(learner.best, data)
            if figures[CHOICE] >= max((past.get(CHOICE, 0.0) for past in history), default=0.0):
                save_weights(run / FIRST_STAGE_FILE, learner.best, data.classes, recipe.side)
        figures["seconds"] = time.monotonic() - started
        history.append(figures)
        _save_state(run, learner, history)
        _tell(run, history)
        report(figures)
    if not (run / FIRST_STAGE_FILE).exists():
        save_weights(run / FIRST_STAGE_FILE, learner.best, data.classes, recipe.side)
    refit(data, run, recipe, report)


def warming_average(most: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Return how averaged weights follow the network's: fast at first, then by `most` per step.

    By `most` alone a tenth of what training began with is there after hundreds of steps; batch
    norms of the hash heads then set nearly all bits alike, and codes say nothing of the network.
    """

    def follow(averaged: Tensors, current: Tensors, steps: Tensor | int) -> None:
        share = min(most, (1 + int(steps)) / (10 + int(steps)))
        get_ema_multi_avg_fn(share)(averaged, current, steps)  # type: ignore[no-untyped-call]  # torch gives it no types

    return follow


def hasten(block: nn.Module) -> None:
    """Let a block of MONAI's EfficientNet compute the same in fewer operations.

    Its swish becomes one operation instead of two, and a convolution that is padded alike on all
    sides pads by itself instead of taking a padded copy. What is exported stays MONAI's.
    """
    if not hasattr(block, "_swish"):
        return
    block._swish = nn.SiLU()
    padder = getattr(block, "_depthwise_conv_padding", None)
    if isinstance(padder, nn.ConstantPad2d) and len(set(padder.padding)) == 1:
        assert isinstance(block._depthwise_conv, nn.Conv2d)  # noqa: S101 - for the type checker
        block._depthwise_conv.padding = padder.padding[:2]
        block._depthwise_conv_padding = nn.Identity()


def exhausted(history: list[Figures], recipe: Recipe) -> bool:
    """Say whether the last `patience` validations brought nothing better."""
    chosen = [figures[CHOICE] for figures in history if CHOICE in figures]
    late = chosen[-recipe.patience :]
    return len(chosen) > recipe.patience and max(late) <= max(chosen[: -recipe.patience])


class Learner:
    """Network, averaged network, objective and optimiser of a run.

    Parameters
    ----------
    data
        What to learn from.
    recipe
        How.
    """

    def __init__(self, data: Data, recipe: Recipe) -> None:
        self.data, self.recipe = data, recipe
        device = best_device()
        self.fabric = Fabric(accelerator=device.type, devices=1, precision=precision(device))
        network = Dafh(len(data.classes), recipe.architecture)
        for module in network.modules():
            hasten(module)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
        self.objective = Objective(len(data.classes), recipe.architecture.bits, recipe.weights).to(
            self.fabric.device
        )
        optimizer = torch.optim.AdamW(
            [*self.network.parameters(), *self.objective.parameters()],
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
        )
        self.steps = steps_per_epoch(data, recipe)
        self.wrapped, self.optimizer = self.fabric.setup(self.network, optimizer)
        self.averaged = self._average()

    def _average(self) -> AveragedModel:
        return AveragedModel(
            self.network,
            multi_avg_fn=warming_average(self.recipe.averaging),
            use_buffers=True,
        )

    @property
    def best(self) -> Dafh:
        """The network with averaged weights, which is what is validated and kept."""
        averaged = self.averaged.module
        assert isinstance(averaged, Dafh)  # noqa: S101 - for the type checker
        return averaged

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Start from the weights of another network of the same shape.

        Raises
        ------
        InvalidInput
            They are of another network.
        """
        try:
            self.network.load_state_dict(weights)
        except RuntimeError as error:
            raise InvalidInput(
                Reason.SETTING_INVALID,
                f"The weights to start from are another network's: {error}",
                remedy="The recipe's architecture and the number of classes must be theirs.",
                subject="init",
            ) from None
        self.averaged = self._average()

    def parts(self) -> dict[str, Stateful]:
        """Return what must be saved to go on."""
        return {
            "network": self.network,
            "averaged": self.averaged,
            "objective": self.objective,
            "optimizer": self.optimizer,
        }

    def epoch(self, number: int) -> Figures:
        """Train one epoch; return the mean of each term."""
        sums: Figures = {}
        # Stochastic depth draws from the global generator: an epoch must not depend on the last.
        torch.manual_seed(self.recipe.seed * 100_003 + number)
        generator = torch.Generator().manual_seed(self.recipe.seed * 100_019 + number)
        self.wrapped.train()
        for step, batch in enumerate(draw(self.data, self.recipe, number)):
            progress = (number + step / self.steps) / self.recipe.epochs
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(
                    self.recipe.learning_rate, self.recipe.warm_up, progress
                )
            side = self.recipe.side_at(progress)
            images, targets = views(batch, self.recipe, generator, side)
            device = self.fabric.device
            outputs = self.wrapped(images.to(device))
            terms: dict[str, Tensor] = self.objective(outputs, targets.to(device))
            self.optimizer.zero_grad()
            self.fabric.backward(total(terms))
            self.fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=MOST_GRADIENT)
            self.optimizer.step()
            self.averaged.update_parameters(self.network)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term.item() / self.steps
        return sums


def views(
    batch: Batch, recipe: Recipe, generator: torch.Generator, side: int | None = None
) -> tuple[Tensor, Targets]:
    """Return what the network sees of a batch, float32 ``[B + pairs, 1, S, S]``, and its targets.

    `S` is `side`, or else that of the images. The first `pairs` images are seen twice and stay as
    they are; the others may be blended.
    """
    pairs = min(recipe.pairs, len(batch.images))
    again = torch.cat([torch.arange(len(batch.images)), torch.arange(pairs)])
    images, labels = augment(batch.images[again], generator, side), batch.labels[again]
    blended, share = labels.clone(), 1.0
    if torch.rand((), generator=generator) < recipe.blend:
        free = torch.arange(pairs, len(batch.images))
        free = free[labels[free] != UNLABELLED]
        other = free[torch.randperm(len(free), generator=generator)]
        images[free], share = blend(images[free], images[other], generator)
        blended[free] = labels[other]
    return images.contiguous(memory_format=torch.channels_last), Targets(
        labels, blended, share, batch.sources[again]
    )


def _weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InvalidInput(
            Reason.SETTING_INVALID, f"No weights to start from: {error}", subject="init"
        ) from None


def _begin(run: Path, learner: Learner, init: Path | None) -> None:
    """Write down what a run is begun with; refuse to go on with one that had something else.

    Until an epoch is done there is nothing to go on with, and another beginning may be made.
    """
    recipe = learner.recipe.model_dump(mode="json", exclude=set(MAY_CHANGE))
    now = {
        "recipe": recipe,
        "images": learner.data.digest(),
        "precision": precision(learner.fabric.device),
        "init": None if init is None else hashlib.sha256(init.read_bytes()).hexdigest(),
    }
    path = run / BEGUN_FILE
    if not any((run / file).exists() for file in (STATE_FILE, FIRST_STAGE_FILE, WEIGHTS_FILE)):
        with written(path, OPEN) as stream:
            stream.write(f"{json.dumps(now, indent=2)}\n".encode())
    begun = json.loads(path.read_text()) if path.exists() else {}
    other = [name for name, value in now.items() if name not in begun or begun[name] != value]
    if other:
        raise InvalidInput(
            Reason.SETTING_INVALID,
            f"The run in that folder was begun otherwise ({', '.join(other)}).",
            remedy=f"Name another folder: only {', '.join(MAY_CHANGE)} may differ from what its "
            f"{BEGUN_FILE} says; without one it is of an earlier release.",
            subject="run",
        )


def _save_state(run: Path, learner: Learner, history: list[Figures]) -> None:
    states = {name: part.state_dict() for name, part in learner.parts().items()}
    with written(run / STATE_FILE, OPEN) as stream:
        torch.save({"history": history, **states}, stream)


def _tell(run: Path, history: list[Figures]) -> None:
    with written(run / METRICS_FILE, OPEN) as stream:
        stream.writelines(f"{json.dumps(figures)}\n".encode() for figures in history)
    draw_curves(history, run / "curves.png")


def _resume(run: Path, learner: Learner) -> list[Figures]:
    """Take up the run's last state; return the figures of the epochs that are done."""
    path = run / STATE_FILE
    if not path.exists():
        return []
    saved = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in learner.parts().items():
        part.load_state_dict(saved[name])
    history: list[Figures] = saved["history"]
    # It may have been killed after it had saved its state, and before it told of it.
    _tell(run, history)
    return history
