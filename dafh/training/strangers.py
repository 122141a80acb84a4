"""How the out-of-distribution score transfers: networks that never saw some classes are asked.

``python -m dafh.training.strangers --manifest CSV --root DIR`` trains one network per fold without
the fold's classes, sets its threshold on its own validation part, and asks it with the database
and query images: those of the fold are strangers, the others are known. One small JSON file per
finished fold; a fold with a file is not run again.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from rich.console import Console

from dafh.encoding.calibration import Hashes
from dafh.evaluation.calibration import FALSE_ALARMS, fit_strangeness
from dafh.evaluation.manifest import Entry
from dafh.evaluation.trust import Strangeness, judge_strangeness
from dafh.model.network import Dafh
from dafh.training.data import UNLABELLED, Data, cached_images, load_data
from dafh.training.device import Precision, best_device, precision
from dafh.training.settings import Recipe
from dafh.training.table import Bench, named
from dafh.training.train import train
from dafh.training.validation import embed, hash_outputs
from dafh.training.weights import WEIGHTS_FILE, load_network
from dafh.writing import OPEN, written

STUDY = Path("recipes/strangers.toml")
RESULTS = Path("docs/strangers")


class Fold(BaseModel):
    """What a network is not shown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: list[str] = []
    modalities: list[str] = []

    def holds(self, entry: Entry) -> bool:
        """Say whether an image is left out."""
        return entry.class_name in self.classes or entry.modality in self.modalities


class Study(BaseModel):
    """All folds and the recipe that each is trained with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: dict[str, Any]
    folds: dict[str, Fold]


class Outcome(BaseModel):
    """One finished fold; its file is part of the repository."""

    model_config = ConfigDict(frozen=True)

    fold: str
    #: Digest of the images that were asked, and what the network was trained by, and in.
    corpus: str
    precision: Precision
    recipe: dict[str, Any]
    left_out: list[str]
    #: Out-of-distribution score beyond which an image is called strange.
    threshold: float
    found: Strangeness
    #: Share of the strange found with the threshold that gives `FALSE_ALARMS` among these very
    #: known images: the point of the ROC curve, were the validation part exactly like them.
    detected_at_own_limit: float


def run_fold(name: str, study: Study, bench: Bench) -> Outcome:
    """Train a fold's network and ask it; a finished one is read from its file."""
    path = bench.results / f"{name}.json"
    if path.exists():
        return Outcome.model_validate(bench.read(path))
    fold, recipe = study.folds[name], Recipe.model_validate(study.recipe)
    data, network = fold_network(fold, bench.runs / name, recipe, bench)
    seen = data.labels != UNLABELLED
    names = [data.classes[label] for label in data.labels[seen]]
    learnt, held = (_hashes(network, images) for images in (data.images[seen], data.held_images))
    fitted = fit_strangeness(learnt, names, held, data.held_groups)
    asked = [*bench.entries("database"), *bench.entries("query")]
    strange = np.array([fold.holds(one) for one in asked])
    scores = fitted.scores(
        _hashes(network, cached_images(asked, recipe.side, bench.runs / "images"))
    )
    known, strangers = scores[~strange], scores[strange]
    own = np.quantile(known, 1 - FALSE_ALARMS)
    outcome = Outcome(
        fold=name,
        corpus=bench.corpus(),
        precision=precision(best_device()),
        recipe=recipe.model_dump(mode="json"),
        left_out=sorted({one.class_name for one in asked if fold.holds(one)}),
        threshold=fitted.threshold,
        found=judge_strangeness(known, strangers, fitted.threshold),
        detected_at_own_limit=float((strangers > own).mean()),
    )
    with written(path, OPEN) as stream:
        stream.write(f"{json.dumps(outcome.model_dump(), indent=1)}\n".encode())
    return outcome


def fold_network(fold: Fold, run: Path, recipe: Recipe, bench: Bench) -> tuple[Data, Dafh]:
    """Train a fold's network, or read it where it is trained; return it and what it learnt from."""
    shown = [one for one in bench.entries("train") if not fold.holds(one)]
    data = load_data(shown, recipe, bench.runs / "images")
    train(data, run, recipe)
    network, _, _ = load_network(run / WEIGHTS_FILE)
    return data, network


def _hashes(network: Dafh, images: NDArray[np.uint8]) -> Hashes:
    return hash_outputs(embed(network, images), network.architecture.bits)


def main(
    manifest: Annotated[Path, typer.Option(exists=True)],
    root: Annotated[Path, typer.Option(exists=True)],
    study: Annotated[Path, typer.Option(help="The declared folds.", exists=True)] = STUDY,
    runs: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/strangers"),
    results: Annotated[Path, typer.Option(help="Where the outcomes go.")] = RESULTS,
    fold: Annotated[list[str] | None, typer.Option(help="Only these folds.")] = None,
) -> None:
    """Run the folds that have no outcome yet; print all that have one."""
    declared = Study.model_validate(tomllib.loads(study.read_text()))
    bench = Bench(manifest=manifest, root=root, runs=runs, results=results)
    console = Console()
    for name in named(fold, declared.folds, "fold"):
        outcome = run_fold(name, declared, bench)
        found = outcome.found
        console.print(
            f"{name}: AUROC {found.auroc:.3f}, detected {found.detected:.1%} "
            f"at {found.false_alarms:.1%} false alarms, {outcome.detected_at_own_limit:.1%} "
            f"at {FALSE_ALARMS:.0%} of the same, {found.strangers} strangers"
        )


if __name__ == "__main__":
    typer.run(main)
