from __future__ import annotations

import copy
import csv
import json
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer

from dafh.errors import FailedPrecondition
from dafh.evaluation.encoded import Rows
from dafh.evaluation.feature_codes import itq, lsh
from dafh.evaluation.manifest import in_no_order
from dafh.evaluation.metrics import code_distances, macro_map
from dafh.evaluation.protocol import Distances, Measured, measure
from dafh.settings import CHECKOUT
from dafh.training import table
from dafh.training.settings import Recipe
from dafh.training.table import (
    Bench,
    Declared,
    Result,
    Row,
    named,
    report_table,
    result_file,
    run_row,
)
from dafh.training.table_report import REPORT_FILE, write_report

TINY = Declared.model_validate(
    {
        "tuning_epochs": 1,
        "recipe": {"side": 32, "epochs": 1, "batch": 8, "validate_every": 1},
        "rows": {
            "shipped": {"about": "ours", "features": True, "pixels": True, "recipe": {"pairs": 2}},
            "separate": {
                "about": "ours, one length",
                "like": "shipped",
                "recipe": {"architecture": {"bits": [16]}},
            },
            "dpsh": {
                "about": "theirs",
                "recipe": {"weights": {"dpsh": 1.0}},
                "variants": [{"learning_rate": 0.001}],
            },
        },
    }
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    root = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(0)
    with (root / "manifest.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "class", "split", "group"])
        for number in range(60):
            picture = random.integers(0, 120 + 100 * (number % 2), (40, 40), dtype=np.uint8)
            cv2.imwrite(str(root / f"{number}.png"), picture)
            split = ("train", "train", "database", "database", "query")[number // 2 % 5]
            rows.writerow([f"{number}.png", f"class{number % 2}", split, f"g{number}"])
    return Bench(
        manifest=root / "manifest.csv", root=root, runs=root / "runs", results=root / "results"
    )


@pytest.fixture(scope="module")
def finished(bench: Bench) -> Bench:
    for name in TINY.rows:
        run_row(name, TINY, bench)
    return bench


def test_a_finished_run_leaves_its_figures(finished: Bench) -> None:
    ours, theirs = (
        Result.model_validate_json(result_file(finished, name, 7).read_text())
        for name in ("shipped", "dpsh")
    )
    assert set(ours.query) >= {"16", "64", "float", "pixels", "itq-32", "lsh-48"}
    assert set(theirs.query) == {"16", "32", "48", "64"}
    assert len(ours.average_precision["64"]) == len(finished.entries("query"))
    assert len(theirs.tuning) == 2
    assert theirs.setting == int(np.argmax(theirs.tuning))
    assert theirs.recipe["weights"] == {"dpsh": 1.0}
    assert "validation_map" in ours.validation


def test_a_run_that_has_a_result_is_not_run_again(finished: Bench) -> None:
    before = result_file(finished, "dpsh", 7).stat().st_mtime_ns
    run_row("dpsh", TINY, finished)
    assert result_file(finished, "dpsh", 7).stat().st_mtime_ns == before


def test_the_report_compares_and_names_what_was_not_run(finished: Bench) -> None:
    later = TINY.rows | {"later": Row(about="not yet")}
    report_table(TINY.model_copy(update={"rows": later}), finished)
    lines = (finished.results / REPORT_FILE).read_text().splitlines()
    table = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
    assert "not run yet" in table["later"]
    assert " to " in table["dpsh"]
    assert {"shipped: itq", "shipped: lsh", "shipped: float", "shipped: pixels"} <= set(table)
    result = json.loads(result_file(finished, "dpsh", 7).read_text())
    assert f"{result['query']['64']['macro_bar']:.3f}" in table["dpsh"]
    chosen = f"; chosen by validation: dpsh 1, rate {result['recipe']['learning_rate']:g}"
    assert (chosen in table["dpsh"]) == (result["setting"] == 1)
    ours = json.loads(result_file(finished, "shipped", 7).read_text())
    gap = [
        ours["query"][bits]["macro_bar"] - result["query"][bits]["macro_bar"]
        for bits in ("16", "32", "48", "64")
    ]
    assert f"{np.mean(gap):+.3f} (" in table["dpsh"]
    wide = [
        ours["wide"][bits]["macro_bar"] - result["wide"][bits]["macro_bar"]
        for bits in ("16", "32", "48", "64")
    ]
    assert table["dpsh"].endswith(f" | {np.mean(wide):+.3f} |")
    one = json.loads(result_file(finished, "separate", 7).read_text())
    gap = ours["query"]["16"]["macro_bar"] - one["query"]["16"]["macro_bar"]
    assert f"{gap:+.3f} (" in table["separate"]


def test_results_of_another_corpus_are_told_apart_and_not_reported(
    finished: Bench, tmp_path: Path
) -> None:
    """Even where the same images come in another order: answers are kept by their place."""
    head, *rows = finished.manifest.read_text().splitlines()
    other = tmp_path / "manifest.csv"
    other.write_text("\n".join([head, *reversed(rows)]))
    before = (finished.results / REPORT_FILE).read_bytes()
    with pytest.raises(FailedPrecondition, match="of another corpus"):
        report_table(TINY, finished.model_copy(update={"manifest": other}))
    assert (finished.results / REPORT_FILE).read_bytes() == before


def test_the_database_answers_in_no_order(
    finished: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered: list[Rows] = []

    def watched(database: Rows, query: Rows, distances: Distances) -> Measured:
        answered.append(database)
        return measure(database, query, distances)

    monkeypatch.setattr(table, "measure", watched)
    run_row("separate", TINY, finished.model_copy(update={"results": tmp_path}))
    listed = finished.entries("database")
    assert [rows.entries for rows in answered] == [tuple(in_no_order(listed, finished.root))]
    assert list(answered[0].entries) != listed


def test_rows_that_were_measured_in_the_manifests_order_are_named(finished: Bench) -> None:
    run = json.loads(result_file(finished, "dpsh", 7).read_text())
    for order, expected in (("as listed", True), ("in no order", False)):
        write_report({"dpsh": "theirs"}, {"dpsh": [run | {"equal_codes": order}]},
                     finished.entries("query"), finished.results)  # fmt: skip
        told = (finished.results / REPORT_FILE).read_text()
        assert ("which is by class, in: dpsh." in told) == expected


def test_seeds_are_said_to_differ_by_what_they_differ(finished: Bench) -> None:
    run = json.loads(result_file(finished, "shipped", 7).read_text())
    other = copy.deepcopy(run)
    other["query"]["48"]["macro_bar"] += 0.5
    write_report({"shipped": "ours"}, {"shipped": [run, other]}, finished.entries("query"),
                 finished.results)  # fmt: skip
    assert "0.000 / 0.000 / 0.500 / 0.000 apart" in (finished.results / REPORT_FILE).read_text()


def test_a_row_that_is_not_declared_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match="there are shipped, separate, dpsh"):
        named(["papr"], TINY.rows, "row")
    assert named(None, TINY.rows, "row") == list(TINY.rows)


def test_the_committed_table_is_one_that_can_be_run() -> None:
    path = CHECKOUT / "recipes" / "table.toml"
    declared = Declared.model_validate(tomllib.loads(path.read_text()))
    for name in declared.rows:
        for setting in declared.settings(name):
            Recipe.model_validate(setting)
    assert len(declared.rows["shipped"].seeds) == 3
    (without,) = declared.settings("without-cbam")
    assert without["refit"] == declared.settings("shipped")[0]["refit"]


@pytest.mark.parametrize("path", sorted((CHECKOUT / "recipes").glob("*.toml")), ids=str)
def test_every_committed_recipe_can_be_read(path: Path) -> None:
    if path.stem not in ("table", "strangers", "cohort"):
        Recipe.model_validate(tomllib.loads(path.read_text()))


@pytest.mark.parametrize("method", [itq, lsh])
def test_codes_of_features_find_what_is_near(method: object) -> None:
    random = np.random.default_rng(0)
    classes = [f"c{number % 3}" for number in range(90)]
    centres = random.normal(size=(3, 40)) * 3
    features = (centres[[int(name[1]) for name in classes]] + random.normal(size=(90, 40))).astype(
        np.float32
    )
    assert callable(method)
    (coded,) = method(features, 16, features)
    assert coded.shape == (90, 16)
    assert np.abs(coded).max() <= 1
    assert macro_map(code_distances(coded, coded), classes, classes) > 0.95
