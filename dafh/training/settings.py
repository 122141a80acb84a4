"""What a training run is made of; a run's own copy lies beside its checkpoint."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from dafh.model.losses import Weights


class Recipe(BaseModel):
    """A training run, read from a TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    side: int = 128
    epochs: int = 30
    #: Images per step.
    batch: int = 40
    #: Images of a step that the network sees twice, changed in two ways, for the views term.
    pairs: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    #: Share of each class's groups held out of the train split to choose by.
    validation: float = 0.1
    #: Phantoms that join as images without a class, so that unknown images keep apart too.
    phantoms: int = 0
    seed: int = 7
    weights: Weights = Weights()
