from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from dafh.encoding.onnx import CALIBRATION_FILE, MODEL_FILE, OnnxEncoder
from dafh.errors import InvalidInput, Misconfigured
from dafh.imaging.phantom import phantoms
from dafh.settings import CHECKOUT
from dafh.training.settings import RECIPE_FILE, Recipe
from dafh_export.calibrate import calibrate
from dafh_export.repository import describe

PUBLISHED = CHECKOUT / "model_repository" / "dafh" / "2"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copyfile(PUBLISHED / MODEL_FILE, folder / MODEL_FILE)
    (folder / RECIPE_FILE).write_text(Recipe(validation=0.3).model_dump_json())
    return folder


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Forty phantoms, each a group, of class CT or another; one class has a single image."""
    path = tmp_path / "manifest.csv"
    with path.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "class", "split", "group"])
        for number, phantom in enumerate(phantoms(40, 9)):
            name = f"{number}.dcm"
            (tmp_path / name).write_bytes(phantom.data)
            kind = "alone" if number == 0 else "CT" if phantom.modality == "CT" else "other"
            rows.writerow([name, kind, "train", name])
    return path


def test_a_calibration_replaces_one_that_is_none(run: Path, manifest: Path) -> None:
    (run / CALIBRATION_FILE).write_text('{"by_another_release": 1}')
    with pytest.raises(Misconfigured, match="no calibration of the model"):
        OnnxEncoder.of_file(run / MODEL_FILE)
    fitted = calibrate(run, manifest, manifest.parent)
    assert OnnxEncoder.of_file(run / MODEL_FILE).model.calibration == fitted
    strange = fitted.out_of_distribution
    assert strange is not None
    # Four for each class but that of a single image, which is learnt and not held out.
    assert len(strange.prototypes) == 9
    assert 0 < strange.threshold < 2


def test_how_much_was_held_out_is_not_guessed(run: Path, manifest: Path) -> None:
    """Images that the network learnt from would make it look surer than it is."""
    whole = calibrate(run, manifest, manifest.parent)
    (run / RECIPE_FILE).write_text(Recipe(validation=0.6).model_dump_json())
    assert calibrate(run, manifest, manifest.parent).fitted_on != whole.fitted_on
    (run / RECIPE_FILE).unlink()
    with pytest.raises(InvalidInput, match=r"no recipe\.json"):
        calibrate(run, manifest, manifest.parent)


def test_a_manifest_without_a_train_split_is_refused(run: Path, manifest: Path) -> None:
    manifest.write_text(manifest.read_text().replace("train", "query"))
    with pytest.raises(InvalidInput, match="0 images were learnt from and 0 held out"):
        calibrate(run, manifest, manifest.parent)
    assert not (run / CALIBRATION_FILE).exists()


def test_an_image_that_imaging_refuses_is_not_left_out_in_silence(
    run: Path, manifest: Path
) -> None:
    (manifest.parent / "7.dcm").write_bytes(b"no image")
    with pytest.raises(InvalidInput, match="Imaging refuses 1 images"):
        calibrate(run, manifest, manifest.parent)


def test_prototypes_of_another_model_are_not_published(run: Path) -> None:
    (run / CALIBRATION_FILE).write_text(
        '{"out_of_distribution": {"threshold": 0.3, "prototypes": ["AAAA"]}}'
    )
    with pytest.raises(Misconfigured, match="calibration"):
        describe(run, 3)
