from __future__ import annotations

import copy
import csv
import dataclasses
import itertools
import json
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from dafh.errors import InvalidInput, Misconfigured
from dafh.evaluation.manifest import Entry, hold_out, read_manifest
from dafh.model.network import Architecture, Dafh
from dafh.settings import CHECKOUT
from dafh.training.data import UNLABELLED, cached_images, draw, draw_twice, load_data, noise
from dafh.training.device import precision
from dafh.training.rate import learning_rate
from dafh.training.refit import refit
from dafh.training.settings import Recipe, Refit
from dafh.training.train import Learner, exhausted, hasten, train, views
from dafh.training.validation import CHOICE, Figures
from dafh.training.weights import FIRST_STAGE_FILE, WEIGHTS_FILE, load_network, save_weights

RECIPE = Recipe(side=32, epochs=2, batch=8, pairs=4, validate_every=1, phantoms=2, noise=2)
TWO_STAGES = RECIPE.model_copy(update={"refit": Refit(views=2, epochs=2, batch=8, unlabelled=2)})


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


def test_the_recipe_of_the_guide_leaves_no_term_out() -> None:
    page = (CHECKOUT / "docs" / "train-your-own.md").read_text()
    (recipe,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert Recipe.model_validate(tomllib.loads(recipe)) == Recipe()


def test_a_table_of_weights_stands_whole() -> None:
    assert Recipe.model_validate({"weights": {"triplet": 2.0}}).weights == {"triplet": 2.0}


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(
    entries: list[Entry], tmp_path: Path
) -> None:
    data = load_data(entries, RECIPE, tmp_path / "images")
    train(data, tmp_path / "whole", TWO_STAGES)

    class KilledError(Exception):
        pass

    def kill(_: Figures) -> None:
        raise KilledError

    # After each epoch; then between the second stage's training and its end.
    for state in ("last.pt", "last.pt", "refit.json"):
        with pytest.raises(KilledError):
            train(data, tmp_path / "cut", TWO_STAGES, kill)
        assert (tmp_path / "cut" / state).exists()
    train(data, tmp_path / "cut", TWO_STAGES)
    whole, cut = (load_file(tmp_path / run / "model.safetensors") for run in ("whole", "cut"))
    assert all(bool((whole[name] == cut[name]).all()) for name in whole)
    lines = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1]
    assert (tmp_path / "cut" / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_run_that_is_killed_at_any_moment_ends_with_the_same_weights(
    entries: list[Entry], tmp_path: Path
) -> None:
    """By signal 9, as the out-of-memory killer does: nothing gets to clean up."""
    config = tmp_path / "recipe.toml"
    recipe = RECIPE.model_dump(include=RECIPE.model_fields_set)
    config.write_text("\n".join(f"{name} = {value}" for name, value in recipe.items()))
    root = entries[0].file.parent
    command = [str(Path(sys.executable).with_name("dafh")), "train", f"--config={config}",
               f"--manifest={root / 'manifest.csv'}", f"--root={root}"]  # fmt: skip
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run([*command, f"--run={whole}"], check=True, timeout=300)
    with subprocess.Popen([*command, f"--run={cut}"]) as training:
        while not (cut / "last.pt").exists() and training.poll() is None:
            time.sleep(0.01)
        training.kill()
    assert training.returncode == -signal.SIGKILL
    subprocess.run([*command, f"--run={cut}"], check=True, timeout=300)
    # Not byte by byte: safetensors writes what describes the weights in any order.
    ended, expected = (load_file(run / WEIGHTS_FILE) for run in (cut, whole))
    assert all(torch.equal(ended[name], expected[name]) for name in expected)


def test_a_run_is_gone_on_with_by_what_it_was_begun_with_alone(
    entries: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its recipe.json tells of weights that it did not make."""
    run = tmp_path / "run"
    data = load_data(entries, RECIPE, tmp_path / "images")
    train(data, run, RECIPE.model_copy(update={"epochs": 1}))
    before = (run / "recipe.json").read_bytes()
    renamed = dataclasses.replace(data, classes=("class0", "other"))
    init = tmp_path / "init.safetensors"
    save_file(Dafh(2, RECIPE.architecture).state_dict(), init)
    for images, recipe, weights, what in (
        (data, RECIPE.model_copy(update={"batch": 4}), None, r"\(recipe\)"),
        (renamed, RECIPE, None, r"\(images\)"),
        (data, RECIPE, init, r"\(init\)"),
    ):
        with pytest.raises(InvalidInput, match=what):
            train(images, run, recipe, init=weights)
        assert (run / "recipe.json").read_bytes() == before
    train(data, run, RECIPE)
    # As if it had been killed after the last state.
    (run / "metrics.jsonl").unlink()
    (run / "curves.png").unlink()
    train(data, run, RECIPE)
    assert len((run / "metrics.jsonl").read_text().splitlines()) == RECIPE.epochs
    assert (run / "curves.png").exists()
    with pytest.raises(InvalidInput, match="for 2 epochs already"):
        train(data, run, RECIPE.model_copy(update={"epochs": 1}))
    other = "32-true" if precision(torch.device("cpu")) == "bf16-mixed" else "bf16-mixed"
    monkeypatch.setattr("dafh.training.train.precision", lambda _: other)
    with pytest.raises(InvalidInput, match=r"\(precision\)"):
        train(data, run, RECIPE)


def test_a_run_that_learnt_nothing_yet_may_be_begun_anew(
    entries: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_data(entries, RECIPE, tmp_path / "images")
    with monkeypatch.context() as broken:
        broken.setattr(Learner, "epoch", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "run", RECIPE)
    other = RECIPE.model_copy(update={"batch": 12, "epochs": 1})
    train(data, tmp_path / "run", other)
    begun = json.loads((tmp_path / "run" / "begun.json").read_text())
    assert begun["recipe"]["batch"] == 12


def test_a_run_of_an_earlier_release_is_not_gone_on_with(
    entries: list[Entry], tmp_path: Path
) -> None:
    """It does not say what it was begun with."""
    data = load_data(entries, RECIPE, tmp_path / "images")
    for file in ("last.pt", WEIGHTS_FILE):
        run = tmp_path / file
        run.mkdir()
        (run / file).write_bytes(b"from then")
        with pytest.raises(InvalidInput, match="recipe, images, precision, init"):
            train(data, run, RECIPE)
        assert (run / file).read_bytes() == b"from then"


def test_weights_that_are_none_of_this_network_are_refused(
    entries: list[Entry], tmp_path: Path
) -> None:
    data = load_data(entries, RECIPE, tmp_path / "images")
    init = tmp_path / "weights.safetensors"
    init.write_bytes(b"no weights")
    with pytest.raises(InvalidInput, match="No weights to start from"):
        train(data, tmp_path / "run", RECIPE, init=init)
    save_file({"project.weight": torch.zeros(2)}, init)
    with pytest.raises(InvalidInput, match="another network's"):
        train(data, tmp_path / "run", RECIPE, init=init)


def test_what_nothing_can_be_learnt_from_is_refused(entries: list[Entry], tmp_path: Path) -> None:
    alone = [dataclasses.replace(one, group=one.class_name) for one in entries]
    _, held = hold_out(entries, RECIPE.validation)
    in_validation = [*entries, dataclasses.replace(held[0], class_name="rare")]
    for given, said in (
        ([], 'No row has the split "train"'),
        (alone, "Nothing can be held out"),
        (in_validation, "no image is left of rare"),
    ):
        with pytest.raises(InvalidInput, match=said):
            load_data(given, RECIPE, tmp_path)


def test_a_class_of_one_group_is_learnt_and_not_held_out(
    entries: list[Entry], tmp_path: Path
) -> None:
    single = [dataclasses.replace(one, group="g" if one.class_name == "class1" else one.group)
              for one in entries]  # fmt: skip
    data = load_data(single, RECIPE, tmp_path)
    assert (data.labels == 1).sum() == 12
    assert 1 not in data.held_labels


def test_an_image_that_cannot_be_used_is_named(entries: list[Entry], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    for file in (broken, tmp_path / "missing.png"):
        given = [*entries, dataclasses.replace(entries[0], file=file, group="new")]
        with pytest.raises(Misconfigured, match=file.name):
            cached_images(given, 32, tmp_path / "images")


def test_faster_operations_compute_the_same() -> None:
    plain = Dafh(2, Architecture()).eval()
    fast = copy.deepcopy(plain)
    for module in fast.modules():
        hasten(module)
    assert not any("ConstantPad2d" in str(module) for name, module in fast.named_modules()
                   if name.endswith("0.0._depthwise_conv_padding"))  # fmt: skip
    shown = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 1, 64, 64), np.uint8))
    with torch.no_grad():
        torch.testing.assert_close(fast(shown).fused, plain(shown).fused)


@pytest.mark.parametrize(
    ("able", "expected"), [("AVX2", "32-true"), ("AVX512", "bf16-mixed"), ("DEFAULT", "32-true")]
)
def test_a_processor_without_bfloat16_trains_in_float32(
    able: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: able)
    assert precision(torch.device("cpu")) == expected
    assert precision(torch.device("cuda")) == "bf16-mixed"


def test_a_run_can_start_from_the_weights_of_another(entries: list[Entry], tmp_path: Path) -> None:
    data = load_data(entries, RECIPE, tmp_path / "images")
    train(data, tmp_path / "first", RECIPE.model_copy(update={"epochs": 1}))
    weights = load_file(tmp_path / "first" / "model.safetensors")
    learner = Learner(data, RECIPE)
    learner.start_from(weights)
    for network in (learner.network, learner.averaged.module):
        assert all(bool((value == weights[name]).all())
                   for name, value in network.state_dict().items())  # fmt: skip


def test_averaged_weights_soon_forget_what_training_began_with(
    entries: list[Entry], tmp_path: Path
) -> None:
    """Running statistics, too; or codes of a short training are all alike."""
    learner = Learner(load_data(entries, RECIPE, tmp_path), RECIPE)
    first = {name: value.clone() for name, value in learner.network.state_dict().items()}
    for step in range(100):
        with torch.no_grad():
            for name, value in learner.network.state_dict().items():
                if value.is_floating_point():
                    value.copy_(first[name] + (step > 0))
        learner.averaged.update_parameters(learner.network)
    for name, value in learner.best.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, first[name] + 1, rtol=0, atol=1e-3)


def test_a_run_ends_early_where_validation_stays_below_its_best() -> None:
    recipe = RECIPE.model_copy(update={"patience": 2})
    assert not exhausted([{CHOICE: 0.5}, {CHOICE: 0.4}], recipe)
    assert exhausted([{CHOICE: 0.5}, {CHOICE: 0.4}, {"seconds": 1.0}, {CHOICE: 0.3}], recipe)
    assert not exhausted([{CHOICE: 0.5}, {CHOICE: 0.4}, {CHOICE: 0.6}], recipe)
    assert exhausted([{CHOICE: 0.5}] * 3, recipe)


def test_the_learning_rate_rises_then_falls_to_its_least() -> None:
    rates = [learning_rate(1.0, 0.2, step / 100) for step in range(101)]
    assert max(rates) == rates[20] == 1.0
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[-1] == pytest.approx(0.01)


def test_the_second_stage_leaves_what_precedes_fusion_and_runs_once(
    entries: list[Entry], tmp_path: Path
) -> None:
    data = load_data(entries, TWO_STAGES, tmp_path / "images")
    reports: list[Figures] = []
    for _ in range(2):
        train(data, tmp_path / "run", TWO_STAGES, reports.append)
    first, second = (
        load_file(tmp_path / "run" / file) for file in (FIRST_STAGE_FILE, WEIGHTS_FILE)
    )
    changed = {name.split(".")[0] for name in first if not torch.equal(first[name], second[name])}
    assert changed == {"project", "fuse", "heads", "classifier"}
    assert ["epoch" in figures for figures in reports] == [True, True, False]
    network, _, _ = load_network(tmp_path / "run" / WEIGHTS_FILE)
    with torch.no_grad():
        hashes = network(torch.from_numpy(np.array(data.images[data.labels >= 0]))).hashes
    for outputs in hashes.values():
        assert 0.3 < float(outputs.abs().mean()) < 0.9


def test_weights_are_made_anew_of_another_first_stage_or_by_another_second(
    entries: list[Entry], tmp_path: Path
) -> None:
    """The recipe beside them must tell of them."""
    data = load_data(entries, RECIPE, tmp_path / "images")
    assert TWO_STAGES.refit is not None
    gentler = TWO_STAGES.refit.model_copy(update={"learning_rate": 1e-4})
    made = []
    for recipe in (RECIPE, TWO_STAGES, TWO_STAGES.model_copy(update={"refit": gentler}), RECIPE):
        train(data, tmp_path / "run", recipe)
        made.append(load_file(tmp_path / "run" / WEIGHTS_FILE)["heads.0.project.weight"])
        assert Recipe.model_validate_json((tmp_path / "run" / "recipe.json").read_bytes()) == recipe
        assert (tmp_path / "run" / "refit.json").exists() == (recipe.refit is not None)
    assert torch.equal(made[0], made[3])
    assert not any(torch.equal(one, two) for one, two in itertools.pairwise(made))
    other = Dafh(2, RECIPE.architecture)
    save_weights(tmp_path / "run" / FIRST_STAGE_FILE, other, data.classes, 32)
    refit(data, tmp_path / "run", TWO_STAGES)
    network, _, _ = load_network(tmp_path / "run" / WEIGHTS_FILE)
    kept, expected = (next(one.backbone.parameters()) for one in (network, other))
    assert torch.equal(kept, expected)


def test_what_is_blended_says_so_and_pairs_stay_as_they_are(
    entries: list[Entry], tmp_path: Path
) -> None:
    recipe = RECIPE.model_copy(update={"blend": 1.0, "batch": 16})
    data = load_data(entries, recipe, tmp_path)
    batch = next(draw(data, recipe, 0))
    images, targets = views(batch, recipe, torch.Generator().manual_seed(4))
    assert images.shape == (20, 1, 32, 32)
    assert 0 < targets.share < 1
    paired = torch.cat([torch.arange(4), torch.arange(16, 20)])
    assert bool((targets.labels[paired] == targets.blended[paired]).all())
    assert bool((targets.images[:4] == targets.images[16:]).all())
    unlabelled = targets.labels == UNLABELLED
    assert bool((targets.blended[unlabelled] == UNLABELLED).all())
    assert 0 <= float(images.min()) <= float(images.max()) <= 255


def test_small_images_come_first(entries: list[Entry], tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"side": 64, "small_side": 32, "batch": 16})
    data = load_data(entries, recipe, tmp_path)
    batch = next(draw(data, recipe, 0))
    small, _ = views(batch, recipe, torch.Generator().manual_seed(3), recipe.small_side)
    whole, _ = views(batch, recipe, torch.Generator().manual_seed(3))
    assert small.shape[-2:] == (32, 32)
    assert whole.shape[-2:] == (64, 64)


def test_the_second_stage_shows_what_has_no_class_twice(
    entries: list[Entry], tmp_path: Path
) -> None:
    data = load_data(entries, RECIPE, tmp_path)
    steps = list(draw_twice(data, 8, 3, np.random.default_rng(0)))
    assert len(steps) == int((data.labels != UNLABELLED).sum()) // 8
    for places in steps:
        assert (data.labels[places[:8]] != UNLABELLED).all()
        assert (data.labels[places[8:]] == UNLABELLED).all()
        assert (places[8:11] == places[11:]).all()


def test_an_image_is_decoded_once(
    entries: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cached_images(entries, 32, tmp_path)
    monkeypatch.setattr("dafh.training.data.load_images", None)
    assert (cached_images(entries, 32, tmp_path) == first).all()


def test_the_time_left_counts_pixels() -> None:
    """Not epochs: those of the second half show larger images, and take longer."""
    recipe = RECIPE.model_copy(update={"side": 128, "small_side": 64, "epochs": 4})
    assert [recipe.epochs_left(done) for done in range(4)] == [9, 8, 1, 0]
    assert RECIPE.epochs_left(0) == 1


def test_a_recipe_with_an_unknown_term_is_refused() -> None:
    with pytest.raises(ValidationError, match="no such terms: magic"):
        Recipe(weights={"magic": 1.0})
    with pytest.raises(ValidationError, match="nothing to learn by"):
        Recipe(weights={"views": 0.0})


def test_a_group_is_never_split_between_training_and_validation(entries: list[Entry]) -> None:
    kept, held = hold_out(entries, 0.3)
    assert {entry.group for entry in kept}.isdisjoint(entry.group for entry in held)
    assert {entry.class_name for entry in held} == {"class0", "class1"}
    assert sorted([*kept, *held], key=str) == sorted(entries, key=str)


def test_noise_ranges_from_white_to_clouds_and_is_the_same_for_a_seed() -> None:
    pictures = noise(24, 3, 32)
    assert (pictures == noise(24, 3, 32)).all()
    grey = pictures[:, 0].astype(float)
    rough = np.abs(np.diff(grey, axis=2)).mean(axis=(1, 2)) / grey.std(axis=(1, 2))
    assert rough.min() < 0.3
    assert rough.max() > 0.9
