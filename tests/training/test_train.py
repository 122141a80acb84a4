from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.torch import load_file

from dafh.training.manifest import Entry, hold_out, read_manifest
from dafh.training.settings import Recipe
from dafh.training.train import train

RECIPE = Recipe(side=32, epochs=2, batch=8, pairs=4)


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    with (root / "manifest.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "class", "split", "group"])
        for number in range(24):
            picture = random.integers(0, 120 + 100 * (number % 2), (40, 40), dtype=np.uint8)
            cv2.imwrite(str(root / f"{number}.png"), picture)
            rows.writerow([f"{number}.png", f"class{number % 2}", "train", f"g{number // 2 // 2}"])
    return read_manifest(root / "manifest.csv", root)


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(
    entries: list[Entry], tmp_path: Path
) -> None:
    train(entries, tmp_path / "whole", RECIPE)

    class KilledError(Exception):
        pass

    def kill(_: dict[str, float]) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        train(entries, tmp_path / "cut", RECIPE, report=kill)
    train(entries, tmp_path / "cut", RECIPE)
    whole, cut = (load_file(tmp_path / run / "model.safetensors") for run in ("whole", "cut"))
    assert all(bool((whole[name] == cut[name]).all()) for name in whole)
    lines = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1]


def test_a_group_is_never_split_between_training_and_validation(entries: list[Entry]) -> None:
    kept, held = hold_out(entries, 0.3)
    assert {entry.group for entry in kept}.isdisjoint(entry.group for entry in held)
    assert {entry.class_name for entry in held} == {"class0", "class1"}
    assert sorted([*kept, *held], key=str) == sorted(entries, key=str)
