"""The comparison of methods: one declared table, run row by row, resumable to the epoch.

``python -m dafh.training.table --manifest CSV --root DIR`` tunes each row's method with a small
equal budget on validation, trains it for each seed, measures it on query and database, and leaves
one small JSON file per finished run. A run whose file exists is not run again, so the table can be
made over many days and machines. ``--report`` only writes what the files say.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console

from dafh.errors import FailedPrecondition, Reason
from dafh.evaluation.encoded import Rows, thumbnail
from dafh.evaluation.feature_codes import itq, lsh
from dafh.evaluation.manifest import Entry, in_no_order, read_manifest
from dafh.evaluation.metrics import average_precision, cosine_distances, nearest, relevance
from dafh.evaluation.protocol import Distances, Figures, by_codes, by_pixels, measure
from dafh.training.data import UNLABELLED, Data, cached_images, load_data
from dafh.training.device import Precision, best_device, precision
from dafh.training.settings import Recipe
from dafh.training.table_report import write_report
from dafh.training.train import train
from dafh.training.validation import CHOICE, FUSED, LOGITS, embed, hash_outputs
from dafh.training.weights import WEIGHTS_FILE, load_network
from dafh.writing import OPEN, written

TABLE = Path("recipes/table.toml")
RESULTS = Path("docs/table")
PIXELS = "pixels"


class Row(BaseModel):
    """One method or ablation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: What it is, for people.
    about: str
    #: Row from whose recipe this one starts.
    like: str = ""
    #: What differs from that, or from the table's common recipe; sections replace it whole.
    recipe: dict[str, Any] = {}
    #: Other settings that are tried besides the published one.
    variants: list[dict[str, Any]] = []
    seeds: list[int] = Field(default=[7], min_length=1)
    #: Also measure float cosine, ITQ and LSH on this row's fused features.
    features: bool = False
    #: Also measure the floor, which no training changes.
    pixels: bool = False


class Declared(BaseModel):
    """The whole table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Epochs that each setting of a method is tried for.
    tuning_epochs: int
    #: Common to all rows; `epochs` is the full training.
    recipe: dict[str, Any]
    rows: dict[str, Row]

    def settings(self, name: str) -> list[dict[str, Any]]:
        """Return the recipe of each setting of a row, the published one first."""
        row = self.rows[name]
        start = self.settings(row.like)[0] if row.like else self.recipe
        return [{**start, **row.recipe, **variant} for variant in ({}, *row.variants)]


class Result(BaseModel):
    """One finished run; its file is part of the repository."""

    model_config = ConfigDict(frozen=True)

    row: str
    seed: int
    #: Digest of the database and query images that it was measured on.
    corpus: str
    #: What it was trained in, which depends on the processor.
    precision: Precision
    #: Who came first of equal codes: those that the manifest has first, or nobody in particular.
    equal_codes: Literal["as listed", "in no order"]
    #: Number of the chosen setting (0: as published) and what validation said of each.
    setting: int
    tuning: list[float]
    recipe: dict[str, Any]
    #: Of its first stage, whose best epoch is the one that was kept.
    validation: dict[str, float]
    #: Of the first stage's epochs; neither tuning nor the second stage is in it.
    seconds: float
    #: Ranking ("64", "float", "itq-32", "pixels") -> figures on query -> database, and wide.
    query: dict[str, Figures]
    wide: dict[str, Figures]
    #: Ranking -> AP@10 of each query in the order of the manifest, for paired comparisons.
    average_precision: dict[str, list[float]]


class Bench(BaseModel):
    """Where a table's images, runs and results are."""

    model_config = ConfigDict(frozen=True)

    manifest: Path
    root: Path
    runs: Path
    results: Path

    def entries(self, split: str) -> list[Entry]:
        """Return the rows of a split."""
        known = read_manifest(self.manifest, self.root)
        return [entry for entry in known if entry.split == split]

    def corpus(self) -> str:
        """Return a digest of what is asked and who may answer: files, classes, groups, in order."""
        asked = [
            (str(one.file.relative_to(self.root)), one.class_name, one.group, one.split)
            for one in (*self.entries("database"), *self.entries("query"))
        ]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:24]

    def read(self, path: Path) -> dict[str, Any]:
        """Return what a finished run or fold left in a file.

        Raises
        ------
        FailedPrecondition
            It was measured on other images.
        """
        found: dict[str, Any] = json.loads(path.read_text())
        if found["corpus"] != self.corpus():
            raise FailedPrecondition(
                Reason.SETTING_INVALID,
                f"{path} is of another corpus, so nothing may be said of it beside this one.",
                remedy="Name another folder with --results (make: RESULTS=FOLDER).",
                subject="results",
            )
        return found


def run_row(name: str, declared: Declared, bench: Bench) -> None:
    """Tune and train one row; what has a result is left alone."""
    row = declared.rows[name]
    missing = [seed for seed in row.seeds if not result_file(bench, name, seed).exists()]
    if not missing:
        return
    settings = declared.settings(name)
    tuning = _tune(name, settings, declared.tuning_epochs, bench) if row.variants else [0.0]
    best = int(np.argmax(tuning))
    for seed in missing:
        recipe = Recipe.model_validate({**settings[best], "seed": seed})
        run = bench.runs / f"{name}-{seed}"
        data = _train(run, recipe, bench)
        query, wide, values = _measure(run, recipe, data, bench, row)
        result = Result(
            row=name, seed=seed, corpus=bench.corpus(), precision=precision(best_device()),
            equal_codes="in no order", setting=best, tuning=tuning,
            recipe=recipe.model_dump(mode="json"), validation=_best_validation(run),
            seconds=round(sum(line.get("seconds", 0) for line in _history(run)), 1),
            query=query, wide=wide, average_precision=values,
        )  # fmt: skip
        with written(result_file(bench, name, seed), OPEN) as stream:
            stream.write(f"{result.model_dump_json(indent=1)}\n".encode())


def result_file(bench: Bench, name: str, seed: int) -> Path:
    """Return where a run's result goes."""
    return bench.results / f"{name}-{seed}.json"


def _tune(name: str, settings: list[dict[str, Any]], epochs: int, bench: Bench) -> list[float]:
    """Return what validation says of each setting after a short training of the first stage."""
    said = []
    for number, setting in enumerate(settings):
        recipe = Recipe.model_validate({**setting, "epochs": epochs, "refit": None})
        run = bench.runs / f"{name}-setting-{number}"
        _train(run, recipe, bench)
        said.append(round(_best_validation(run)[CHOICE], 4))
    return said


def _train(run: Path, recipe: Recipe, bench: Bench) -> Data:
    data = load_data(bench.entries("train"), recipe, bench.runs / "images")
    train(data, run, recipe)
    return data


def _best_validation(run: Path) -> dict[str, float]:
    lines = [line for line in _history(run) if CHOICE in line]
    return max(lines, key=lambda line: line[CHOICE])


def _history(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _measure(
    run: Path, recipe: Recipe, data: Data, bench: Bench, row: Row
) -> tuple[dict[str, Figures], dict[str, Figures], dict[str, list[float]]]:
    network, _, _ = load_network(run / WEIGHTS_FILE)
    splits, fused = {}, {}
    for split in ("database", "query"):
        # Queries keep their order: their values are compared from run to run, pair by pair.
        entries = bench.entries(split)
        if split == "database":
            entries = in_no_order(entries, bench.root)
        images = cached_images(entries, recipe.side, bench.runs / "images")
        outputs = embed(network, images)
        fused[split] = outputs[FUSED]
        hashes = hash_outputs(outputs, network.architecture.bits)
        small = np.stack([thumbnail(image) for image in images])
        splits[split] = Rows(tuple(entries), hashes, outputs[LOGITS], small)
    database, query = splits["database"], splits["query"]
    rankings: dict[str, tuple[Distances, Rows, Rows]] = {
        str(bits): (by_codes(bits), database, query) for bits in network.architecture.bits
    }
    if row.pixels:
        rankings[PIXELS] = (by_pixels, database, query)
    if row.features:
        learnt = embed(network, data.images[data.labels != UNLABELLED])[FUSED]
        rankings |= _of_features(learnt, fused, database, query)
    measured = {name: measure(base, asks, far) for name, (far, base, asks) in rankings.items()}
    values = {
        name: _values(far(asks, base), asks, base) for name, (far, base, asks) in rankings.items()
    }
    return (
        {name: one.map_at_10 for name, one in measured.items()},
        {name: one.wide for name, one in measured.items()},
        values,
    )


def _of_features(
    learnt: NDArray[np.float32], fused: dict[str, NDArray[np.float32]], database: Rows, query: Rows
) -> dict[str, tuple[Distances, Rows, Rows]]:
    """Return the rankings that need no hash head: float cosine, ITQ and LSH of every length."""

    def with_codes(rows: Rows, codes: NDArray[np.float32]) -> Rows:
        return Rows(rows.entries, {codes.shape[1]: codes}, rows.logits, rows.thumbnails)

    def cosine(asks: Rows, answers: Rows) -> NDArray[np.float64]:
        return cosine_distances(asks.hashes[width], answers.hashes[width])

    width = learnt.shape[1]
    base, asks = fused["database"], fused["query"]
    rankings: dict[str, tuple[Distances, Rows, Rows]] = {
        "float": (cosine, with_codes(database, base), with_codes(query, asks))
    }
    for bits in query.hashes:
        for name, method in (("itq", itq), ("lsh", lsh)):
            coded = method(learnt, bits, base, asks)
            rankings[f"{name}-{bits}"] = (
                by_codes(bits), with_codes(database, coded[0]), with_codes(query, coded[1])
            )  # fmt: skip
    return rankings


def _values(distances: NDArray[np.float64], query: Rows, database: Rows) -> list[float]:
    relevant = relevance(nearest(distances), query.classes, database.classes)
    return [round(float(value), 5) for value in average_precision(relevant)]


def main(
    manifest: Annotated[Path, typer.Option(exists=True)],
    root: Annotated[Path, typer.Option(exists=True)],
    table: Annotated[Path, typer.Option(help="The declared table.", exists=True)] = TABLE,
    runs: Annotated[Path, typer.Option(help="Where the runs themselves go.")] = Path("runs/table"),
    results: Annotated[Path, typer.Option(help="Where their results go.")] = RESULTS,
    row: Annotated[list[str] | None, typer.Option(help="Only these rows.")] = None,
    report: Annotated[bool, typer.Option("--report", help="Run nothing, only report.")] = False,
) -> None:
    """Run what the table still lacks, and write its report."""
    declared = Declared.model_validate(tomllib.loads(table.read_text()))
    bench = Bench(manifest=manifest, root=root, runs=runs, results=results)
    console = Console(stderr=True)
    chosen = named(row, declared.rows, "row")
    report_table(declared, bench)
    for name in [] if report else chosen:
        console.print(f"row {name}: {declared.rows[name].about}")
        run_row(name, declared, bench)
        report_table(declared, bench)


def report_table(declared: Declared, bench: Bench) -> None:
    """Write what all finished runs say."""
    found = {
        name: [
            bench.read(path)
            for path in sorted(bench.results.glob(f"{name}-*.json"))
            if path.stem.rpartition("-")[0] == name
        ]
        for name in declared.rows
    }
    about = {name: one.about for name, one in declared.rows.items()}
    write_report(about, found, bench.entries("query"), bench.results)


def named(asked: Sequence[str] | None, declared: Iterable[str], option: str) -> list[str]:
    """Return the declared names that were asked for, all where none was.

    Raises
    ------
    typer.BadParameter
        One is not declared.
    """
    known = list(declared)
    for name in asked or ():
        if name not in known:
            raise typer.BadParameter(f"{name}; there are {', '.join(known)}", param_hint=option)
    return list(asked or known)


if __name__ == "__main__":
    typer.run(main)
