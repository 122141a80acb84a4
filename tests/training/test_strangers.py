from __future__ import annotations

import csv
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest

from dafh.codes import BITS
from dafh.evaluation.calibration import fit_strangeness
from dafh.evaluation.manifest import hold_out
from dafh.settings import CHECKOUT
from dafh.training.data import cached_images
from dafh.training.settings import Recipe
from dafh.training.strangers import RESULTS, Fold, Outcome, Study, run_fold
from dafh.training.table import Bench
from dafh.training.validation import embed
from dafh.training.weights import WEIGHTS_FILE, load_network


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    random = np.random.default_rng(0)
    with (tmp_path / "manifest.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "class", "split", "modality"])
        for number in range(60):
            kind = number % 3
            picture = random.integers(0, 100 + 70 * kind, (40, 40), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
            split = ("train", "train", "database", "query")[number // 3 % 4]
            rows.writerow([f"{number}.png", f"class{kind}", split, ("CT", "CT", "US")[kind]])
    return Bench(
        manifest=tmp_path / "manifest.csv", root=tmp_path, runs=tmp_path / "runs",
        results=tmp_path / "results",
    )  # fmt: skip


def test_a_fold_asks_a_network_that_never_saw_its_classes_and_runs_once(bench: Bench) -> None:
    study = Study(
        recipe={"side": 32, "epochs": 1, "batch": 8, "validate_every": 1},
        folds={"without-us": Fold(modalities=["US"])},
    )
    outcome = run_fold("without-us", study, bench)
    assert outcome.left_out == ["class2"]
    assert outcome.found.strangers == 10
    assert 0 <= outcome.found.detected <= 1
    network, _, _ = load_network(bench.runs / "without-us" / WEIGHTS_FILE)
    train = [one for one in bench.entries("train") if one.modality != "US"]
    learnt, held = hold_out(train, Recipe().validation)
    asked = [*bench.entries("database"), *bench.entries("query")]
    hashes = [
        {bits: embed(network, cached_images(part, 32, bench.runs / "images"))[str(bits)]
         for bits in BITS}
        for part in (learnt, held, asked)
    ]  # fmt: skip
    fitted = fit_strangeness(
        hashes[0], [one.class_name for one in learnt], hashes[1], [one.group for one in held]
    )
    assert outcome.threshold == pytest.approx(fitted.threshold)
    strange = np.array([one.modality == "US" for one in asked])
    scores = fitted.scores(hashes[2])
    beyond = scores[strange] > np.quantile(scores[~strange], 0.95)
    assert outcome.detected_at_own_limit == pytest.approx(float(beyond.mean()))
    metrics = bench.runs / "without-us" / "metrics.jsonl"
    metrics.unlink()
    assert run_fold("without-us", study, bench) == outcome
    assert not metrics.exists()


def test_the_folds_that_were_run_are_told_as_they_ended() -> None:
    page = (CHECKOUT / "docs" / "evaluation.md").read_text()
    for path in (CHECKOUT / RESULTS).glob("*.json"):
        one = Outcome.model_validate_json(path.read_text())
        found = one.found
        row = (
            f"| {one.fold} | {found.strangers} | {found.auroc:.3f} | {found.detected:.1%} "
            f"| {found.false_alarms:.1%} | {one.detected_at_own_limit:.1%} |"
        )
        assert row in page


def test_the_committed_study_can_be_run() -> None:
    text = (CHECKOUT / "recipes" / "strangers.toml").read_text()
    study = Study.model_validate(tomllib.loads(text))
    Recipe.model_validate(study.recipe)
    assert all(fold.classes or fold.modalities for fold in study.folds.values())
    assert any(fold.modalities for fold in study.folds.values())
