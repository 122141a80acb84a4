"""Phantoms: valid, varied, the same on every run, and never mistaken for a patient."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import typer
from pydicom import dcmread
from typer.testing import CliRunner

from dafh.imaging import commands
from dafh.imaging.decode import decode
from dafh.imaging.metadata import UID_PATTERN
from dafh.imaging.phantom import Phantom, drawn, phantom_images, phantoms, places
from dafh.imaging.phantom.study import CROWD
from dafh.imaging.terms import BODY_PARTS

from .instances import SEED, reread

DIGEST = (
    "import hashlib; from dafh.imaging.phantom import phantoms;"
    "print(hashlib.sha256(b''.join(one.data for one in phantoms(12, 2))).hexdigest())"
)


def test_a_seed_gives_the_same_bytes_in_another_process(sample: list[Phantom]) -> None:
    ours = hashlib.sha256(b"".join(one.data for one in sample[:12])).hexdigest()
    theirs = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, check=True)
    assert theirs.stdout.decode().strip() == ours


def test_a_shorter_run_is_the_start_of_a_longer_one(sample: list[Phantom]) -> None:
    assert list(phantoms(7, SEED)) == sample[:7]


def test_another_seed_gives_other_phantoms(sample: list[Phantom]) -> None:
    other = next(phantoms(1, SEED + 1))
    assert other.data != sample[0].data
    assert uid(other) not in {uid(one) for one in sample}


def uid(phantom: Phantom) -> str:
    return decode(phantom.data, side=8).metadata.sop_instance_uid


def test_all_modalities_and_syntaxes_come_up(sample: list[Phantom]) -> None:
    assert {one.modality for one in sample} == {"CT", "MR", "PT", "US", "MG"}
    images = [decode(one.data, side=8) for one in sample]
    assert len({image.metadata.transfer_syntax for image in images}) == 8
    assert all(image.metadata.body_part in BODY_PARTS for image in images)
    photometrics = {reread(one.data).PhotometricInterpretation for one in sample}
    assert photometrics >= {"MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL_422"}
    assert {reread(one.data).PixelRepresentation for one in sample} == {0, 1}
    assert any("default window" in step for image in images for step in image.applied)


def test_patients_have_several_studies_series_and_slices(sample: list[Phantom]) -> None:
    data_sets = [reread(one.data) for one in sample]
    studies = {(one.PatientID, one.StudyInstanceUID) for one in data_sets}
    series = Counter(one.SeriesInstanceUID for one in data_sets)
    assert max(Counter(patient for patient, _ in studies).values()) >= 2
    assert max(series.values()) >= 3
    assert len({one.PatientID for one in data_sets}) >= 6
    assert len({one.SOPInstanceUID for one in data_sets}) == len(sample)


def test_no_phantom_passes_for_a_patient(sample: list[Phantom]) -> None:
    for one in sample:
        data_set = reread(one.data)
        assert str(data_set.PatientName).startswith("PHANTOM^")
        assert data_set.PatientID.startswith("PHANTOM-")
        assert "not patient data" in data_set.ImageComments
        assert data_set.PatientIdentityRemoved == "YES"
        assert data_set.ManufacturerModelName == "DAFH phantom"


def test_phantoms_are_conformant_where_it_can_be_checked(sample: list[Phantom]) -> None:
    for one in sample:
        data_set = dcmread(io.BytesIO(one.data))
        meta = data_set.file_meta
        assert meta.MediaStorageSOPInstanceUID == data_set.SOPInstanceUID
        for value in (data_set.SOPInstanceUID, data_set.StudyInstanceUID, meta.TransferSyntaxUID):
            assert UID_PATTERN.fullmatch(value)
        tags = [element.tag for element in data_set]
        assert tags == sorted(tags)
        assert not decode(one.data, side=8).warnings


def test_no_two_phantoms_look_alike(sample: list[Phantom]) -> None:
    images = np.stack([decode(one.data, side=64).pixels.ravel() for one in sample]).astype(float)
    for index, image in enumerate(images):
        apart = np.abs(images - image).mean(axis=1)
        apart[index] = np.inf
        assert apart.min() > 2, sample[index].file_name


def test_phantom_images_are_the_decoded_phantoms(sample: list[Phantom]) -> None:
    images = phantom_images(3, SEED, 32)
    assert images.shape == (3, 1, 32, 32)
    assert np.array_equal(images[2], decode(sample[2].data, side=32).pixels)


def test_a_crowd_is_varied_and_small_enough_for_a_laptop() -> None:
    """A hundred thousand fit 5 GB: these are of those from the first thousand on."""
    crowd = [drawn(place) for place in list(places(1600))[-150:]]
    data_sets = [reread(one.data) for one in crowd]
    assert all(place.series > CROWD for place in list(places(1600))[-150:])
    assert {one.modality for one in crowd} == {"CT", "MR", "PT", "US", "MG"}
    assert len({one.file_meta.TransferSyntaxUID for one in data_sets}) == 8
    assert len({(one.Rows, one.Columns) for one in data_sets}) >= 12
    assert np.mean([len(one.data) for one in crowd]) < 50_000 * 0.8
    assert len({one.data for one in crowd}) == len(crowd)
    for one in crowd:
        assert not decode(one.data, side=8).warnings


def test_many_phantoms_are_the_same_from_several_processes(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(commands.phantom)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "MANY", 2)
        patch.setattr(commands, "ROUND", 5)
        answer = CliRunner().invoke(app, [str(tmp_path), "--instances", "12", "--seed", str(SEED)])
    assert answer.exit_code == 0, answer.output
    for one in phantoms(12, SEED):
        assert (tmp_path / one.file_name).read_bytes() == one.data
    assert len((tmp_path / "manifest.csv").read_text().splitlines()) == 13
