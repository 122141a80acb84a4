"""``dafh train``: a training run from a manifest."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dafh.errors import InvalidInput, Reason


def train(
    manifest: Annotated[
        Path, typer.Option(help="CSV with file, class, split, group.", exists=True)
    ],
    root: Annotated[Path, typer.Option(help="Folder that the files are relative to.", exists=True)],
    run: Annotated[Path, typer.Option(help="Folder of the run; taken up again if it exists.")],
    config: Annotated[Path | None, typer.Option(help="TOML recipe.", exists=True)] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of decoded images; beside the run by default.")
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="Weights (safetensors) to start from.", exists=True)
    ] = None,
) -> None:
    """Train the network on the rows of the manifest whose split is "train"."""
    # torch takes seconds to import: only for those who train.
    from pydantic import ValidationError

    from dafh.evaluation.manifest import read_manifest
    from dafh.training.data import load_data
    from dafh.training.settings import Recipe
    from dafh.training.train import train as run_training

    try:
        recipe = Recipe.model_validate(tomllib.loads(config.read_text()) if config else {})
    except (ValidationError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(
            Reason.SETTING_INVALID, f"The recipe cannot be used: {error}", subject="config"
        ) from None
    entries = [entry for entry in read_manifest(manifest, root) if entry.split == "train"]
    console = Console(stderr=True)

    def report(figures: dict[str, float]) -> None:
        words = " ".join(f"{name} {value:.3f}" for name, value in figures.items())
        if "epoch" in figures:
            left = recipe.epochs_left(int(figures["epoch"])) * figures["seconds"] / 60
            words = f"of {recipe.epochs}: {words}; {left:.0f} min left"
        console.print(words, soft_wrap=True)

    data = load_data(entries, recipe, cache or run.parent / "images")
    run_training(data, run, recipe, report, init)
