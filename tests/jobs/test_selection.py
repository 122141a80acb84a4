"""A small file of rules says which instances and frames are taken."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from typer.testing import CliRunner

from dafh.cli import build
from dafh.errors import InvalidInput, Misconfigured, Reason
from dafh.imaging.outline import KEY_OBJECT_SELECTION, Outline, outline
from dafh.imaging.phantom import phantoms
from dafh_jobs.selection import Choice, Frames, Selection, Survey
from dafh_jobs.shard import Shard

RULES = """
[[rule]]
modality = ["CT"]
series_description = ["*HEAD*", "*chest*"]
slices = 2
frames = "all"

[[rule]]
modality = ["US"]
take = false

[[rule]]
slices = "representative"
"""


def instance(number: int, *, modality: str = "CT", description: str = "ct head") -> bytes:
    """Return the slice of a series that has this Instance Number."""
    data_set = dcmread(io.BytesIO(next(phantoms(1, 3)).data))
    data_set.Modality, data_set.SeriesDescription = modality, description
    data_set.SOPInstanceUID, data_set.SeriesInstanceUID = f"2.25.{100 + number}", "2.25.9"
    data_set.InstanceNumber = str(number)
    return written(data_set)


def written(data_set: Dataset) -> bytes:
    data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    stream = io.BytesIO()
    dcmwrite(stream, data_set, enforce_file_format=True)
    return stream.getvalue()


def key_object(*uids: str) -> bytes:
    """Return a Key Object Selection of instances."""
    data_set = Dataset()
    data_set.SOPClassUID, data_set.SOPInstanceUID = KEY_OBJECT_SELECTION, "2.25.77"
    data_set.Modality = "KO"
    instances = []
    for uid in uids:
        one = Dataset()
        one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = "1.2", uid
        instances.append(one)
    series, study = Dataset(), Dataset()
    series.ReferencedSOPSequence = instances
    study.ReferencedSeriesSequence = [series]
    data_set.CurrentRequestedProcedureEvidenceSequence = [study]
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data_set.file_meta.MediaStorageSOPClassUID = UID(KEY_OBJECT_SELECTION)
    return written(data_set)


def looked(data: bytes) -> Outline:
    found = outline(data)
    assert found is not None
    return found


def chosen(selection: Selection, files: Sequence[bytes]) -> list[int]:
    """Return the instance numbers that are taken."""
    with Survey() as survey:
        for data in files:
            survey.add(looked(data))
        return [
            looked(data).instance_number
            for data in files
            if selection.choose(looked(data), survey).frames
        ]


@pytest.fixture
def rules(tmp_path: Path) -> Selection:
    (tmp_path / "rules.toml").write_text(RULES)
    return Selection.read(tmp_path / "rules.toml")


def test_the_first_rule_that_fits_decides(rules: Selection) -> None:
    head = rules.choose(looked(instance(1)), None)
    assert (head.rule, head.frames) == (1, Frames.ALL)
    assert rules.choose(looked(instance(1, modality="US")), None).frames is None
    other = rules.choose(looked(instance(2, description="ct knee")), None)
    assert (other.rule, other.frames) == (3, Frames.REPRESENTATIVE)
    assert rules.choose(None, None).rule == 3
    assert Selection().choose(None, None).frames is Frames.REPRESENTATIVE
    assert Selection(rules.rules[:1]).choose(None, None) == Choice(None, 0)
    assert rules.needs_survey
    assert not Selection().looks_inside


def test_the_middle_of_a_series_represents_it_in_every_order(rules: Selection) -> None:
    files = [instance(number, description="knee") for number in (3, 1, 5, 2, 4)]
    assert chosen(rules, files) == [3]
    assert chosen(rules, files[::-1]) == [3]
    # A copy of a slice is not another slice.
    assert set(chosen(rules, [*files, files[2], files[2]])) == {3}


@pytest.mark.parametrize("numbers", [(1, 2, 3, 4), (2, 4, 6, 8), (8, 6, 2, 4)])
def test_every_second_slice_is_half_of_a_series_however_it_is_numbered(
    rules: Selection, numbers: Sequence[int]
) -> None:
    files = [instance(number) for number in numbers]
    first, _, third, _ = sorted(numbers)
    assert sorted(chosen(rules, files)) == [first, third]
    # A copy of a slice is not another slice.
    assert set(chosen(rules, [*files, files[0]])) == {first, third}


def test_slices_without_a_number_are_told_apart_by_their_uid(rules: Selection) -> None:
    data_sets = [dcmread(io.BytesIO(instance(number))) for number in range(6)]
    for data_set in data_sets:
        del data_set.InstanceNumber
    assert chosen(rules, list(map(written, data_sets))) == [0] * 3
    for data_set in data_sets:
        del data_set.SeriesInstanceUID
    assert len(chosen(rules, list(map(written, data_sets)))) == 6


def test_key_images_are_those_that_somebody_marked(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text('[[rule]]\nslices = "key"\n')
    selection = Selection.read(tmp_path / "rules.toml")
    files = [instance(number) for number in (1, 2, 3)]
    assert chosen(selection, files) == []
    assert chosen(selection, [*files, key_object("2.25.102", "2.25.103")]) == [2, 3]


@pytest.mark.parametrize(
    "text",
    ["[[rule", "", "[[rule]]\nslices = 0", "[[rule]]\nmodalities = ['CT']", "[[rule]]\nslices='x'"],
)
def test_rules_that_say_nothing_known_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "rules.toml").write_text(text)
    with pytest.raises(InvalidInput, match="selection"):
        Selection.read(tmp_path / "rules.toml")
    with pytest.raises(InvalidInput, match="selection"):
        Selection.read(tmp_path / "missing.toml")


def test_a_dry_run_tells_what_would_be_taken_and_connects_to_nothing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(1, 6):
        (source / f"{number}").write_bytes(instance(number))
        (source / f"us{number}").write_bytes(instance(number, modality="US"))
    (source / "text").write_text("no image " * 40)
    (source / "cut.zip").write_bytes(b"PK")
    (tmp_path / "rules.toml").write_text(RULES)
    words = ["index", str(source), "--selection", str(tmp_path / "rules.toml"), "--dry-run"]
    told = CliRunner().invoke(build(words), [*words, "--json"], catch_exceptions=False)
    rows = {(row["rule"], row["modality"], row["verdict"]): row["files"]
            for row in json.loads(told.stdout)}  # fmt: skip
    assert rows == {
        (0, "unknown", "refused: CONTAINER_DAMAGED"): 1,
        (0, "unknown", "refused: NOT_AN_IMAGE"): 1,
        (1, "CT", "taken"): 3,
        (1, "CT", "left"): 2,
        (2, "US", "left"): 5,
    }
    shown = CliRunner().invoke(build(words), words, catch_exceptions=False)
    assert "taken" in shown.stdout
    assert str(source) not in shown.stdout


def test_shards_are_disjoint_and_complete() -> None:
    for uid in (f"2.25.{number}" for number in range(300)):
        assert sum(Shard(number, 7).has(uid, "") for number in range(7)) == 1
    sizes = [sum(Shard(part, 7).has(f"1.{n}", "") for n in range(7000)) for part in range(7)]
    assert min(sizes) > 850


def test_a_disk_that_fills_while_the_source_is_looked_through_is_said() -> None:
    with Survey() as survey:
        survey._database.execute("PRAGMA max_page_count = 8")

        def fill() -> None:
            for number in range(10_000):
                survey.add(Outline(f"2.25.{number}", "2.25.9", "CT", number, (), ""))

        with pytest.raises(Misconfigured) as refusal:
            fill()
    assert refusal.value.reason is Reason.DISK_FULL
