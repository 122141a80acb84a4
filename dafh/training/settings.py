"""What a training run is made of; a run's own copy lies beside its checkpoint."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dafh.model.losses import TERMS
from dafh.model.network import Architecture

#: A run's own copy of its recipe.
RECIPE_FILE = "recipe.json"


def _known(weights: dict[str, float]) -> dict[str, float]:
    unknown = sorted(set(weights) - set(TERMS))
    if unknown:
        raise ValueError(f"no such terms: {', '.join(unknown)}; there are {', '.join(TERMS)}")
    if not any(weights.values()):
        raise ValueError("no term has a weight, so there is nothing to learn by")
    return weights


Weights = Annotated[dict[str, float], AfterValidator(_known)]


class Refit(BaseModel):
    """The second stage of a run: fusion, heads and classifier alone, on features of many views.

    Batches can be larger than a whole network affords, so the terms that compare images see more.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Changed views of each image whose features are kept.
    views: int = Field(default=8, ge=1)
    epochs: int = Field(default=80, ge=1)
    #: Images of a step that have a class.
    batch: int = Field(default=256, ge=2)
    #: Images of a step that have none; each is seen twice, for the views term.
    unlabelled: int = Field(default=256, ge=0)
    learning_rate: float = Field(default=4e-3, gt=0)
    warm_up: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=0.05, ge=0)
    #: As those of the recipe, and as whole. Single images are kept apart where no class is at
    #: stake.
    weights: Weights = {
        "classes": 1.0,
        "classifier_lenient": 0.5,
        "quantisation": 0.05,
        "views_sharp": 2.0,
        "neighbours": 0.1,
    }


class Recipe(BaseModel):
    """A training run, read from a TOML file.

    What the file does not say is as here. A table of `weights` stands whole: the objective has the
    terms that it names, and no other.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    side: int = Field(default=128, ge=32, multiple_of=32)
    #: Of the first stage; 0 goes straight to the second, on the weights the run starts from.
    epochs: int = Field(default=30, ge=0)
    #: Side that the network sees first, and the share of the first stage that it does: small images
    #: first save time (Tan and Le, ICML 2021, section 4). ``None``: `side` throughout.
    small_side: int | None = Field(default=None, ge=32, multiple_of=32)
    small_share: float = Field(default=0.5, ge=0, le=1)
    #: Images per step.
    batch: int = Field(default=48, ge=2)
    #: Images of a step that the network sees twice, changed in two ways, for the views term.
    pairs: int = Field(default=12, ge=0)
    #: Share of steps in which images are blended (mixup or CutMix).
    blend: float = Field(default=0.5, ge=0, le=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    #: Share of the run in which the learning rate rises.
    warm_up: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.02, ge=0)
    #: Per step, of the average of the weights that is validated and kept.
    averaging: float = Field(default=0.997, ge=0, lt=1)
    #: Share of each class's groups held out of the train split to choose by.
    validation: float = Field(default=0.1, gt=0, lt=1)
    #: Epochs between two validations.
    validate_every: int = Field(default=4, ge=1)
    #: Validations without a better one after which the run ends.
    patience: int = Field(default=6, ge=1)
    #: Phantoms that join as images without a class, so that unknown images keep apart too.
    phantoms: int = Field(default=0, ge=0)
    #: Pictures of noise, from white to clouds, that join in the same way.
    noise: int = Field(default=0, ge=0)
    seed: int = 7
    #: ``None``: the run ends with its first stage.
    refit: Refit | None = None
    architecture: Architecture = Architecture()
    #: Term -> how much it counts (our choice; the paper's are not known to us).
    weights: Weights = {
        "classes": 1.0,
        "classifier": 0.5,
        "quantisation": 0.05,
        "views": 0.15,
        "neighbours": 0.3,
    }

    def side_at(self, progress: float) -> int:
        """Return the side that the network sees after a share of the first stage, in [0, 1)."""
        if self.small_side is None or progress >= self.small_share:
            return self.side
        return self.small_side

    def epochs_left(self, done: int) -> float:
        """Return how often the time of an epoch, by its number, the later ones will take."""
        pixels = [self.side_at(epoch / self.epochs) ** 2 for epoch in range(self.epochs)]
        return sum(pixels[done + 1 :]) / pixels[done]
