from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dafh.errors import InvalidInput
from dafh.evaluation.manifest import read_manifest
from dafh.imaging.phantom import phantoms
from dafh.settings import CHECKOUT
from dafh.training.cohort import COLUMNS, Cohort, choose, fetch, read_cohort, write_series

COHORT = Cohort.model_validate(
    {
        "modalities": ["CT"],
        "licences": ["CC BY 4.0"],
        "patients": 3,
        "slices": 2,
        "series_slices": [2, 50],
        "cancer_types": {"glioma": {"collections": ["one"], "organ": "brain"}},
    }
)


class Frame:
    def __init__(self, rows: list[dict[str, object]]) -> None:
        self.rows = rows

    def to_dict(self, _: str) -> list[dict[str, object]]:
        return self.rows


class ScriptedIndex:
    """Answers like the real client; "downloads" phantoms and a file that is no image."""

    def __init__(self) -> None:
        self.fetched: list[str] = []

    def sql_query(self, sql_query: str) -> Frame:
        assert "BETWEEN 2 AND 50" in sql_query
        rows = [
            {"SeriesInstanceUID": f"1.2.{number}", "PatientID": f"SECRET-{number // 2}",
             "collection_id": collection, "Modality": modality, "license_short_name": licence,
             "series_size_MB": 1.5}
            for number, (collection, modality, licence) in enumerate(
                [("one", "CT", "CC BY 4.0")] * 10
                + [("two", "CT", "CC BY 4.0"), ("one", "MR", "CC BY 4.0"),
                   ("one", "CT", "CC BY-NC 4.0")]
            )
        ]  # fmt: skip
        return Frame(rows)

    def download_from_selection(self, **choice: object) -> object:
        uids = choice["seriesInstanceUID"]
        assert isinstance(uids, list)
        folder = Path(str(choice["downloadDir"]))
        self.fetched += uids
        for number, phantom in enumerate(phantoms(6, 3)):
            (folder / f"{number}.dcm").write_bytes(phantom.data)
        (folder / "broken.dcm").write_bytes(b"nothing")
        return None


def test_one_series_a_patient_of_the_wanted_kind_is_chosen_the_same_each_time() -> None:
    chosen = choose(COHORT, ScriptedIndex())
    assert chosen == choose(COHORT, ScriptedIndex())
    assert len(chosen) == 3
    assert len({one.group for one in chosen}) == 3
    assert {(one.collection, one.modality, one.licence) for one in chosen} == {
        ("one", "CT", "CC BY 4.0")
    }


def test_what_was_fetched_is_a_manifest_that_can_be_trained_on(tmp_path: Path) -> None:
    index = ScriptedIndex()
    chosen = choose(COHORT, index)
    manifest = fetch(chosen, COHORT, index, tmp_path)
    entries = read_manifest(manifest, tmp_path)
    assert len(entries) == 3 * COHORT.slices
    assert all(entry.file.is_file() and entry.class_name == "ct_glioma" for entry in entries)
    by_group = {entry.group: {one.split for one in entries if one.group == entry.group}
                for entry in entries}  # fmt: skip
    assert all(len(splits) == 1 for splits in by_group.values())
    with manifest.open(newline="") as stream:
        assert tuple(next(csv.reader(stream))) == COLUMNS
    # Nothing but the slices that were kept is left, and no patient is named.
    assert len(list(tmp_path.rglob("*.dcm"))) == len(entries)
    assert "SECRET" not in manifest.read_text() + write_series(chosen, tmp_path).read_text()


def test_an_interrupted_fetch_goes_on_where_it_stopped(tmp_path: Path) -> None:
    index = ScriptedIndex()
    chosen = choose(COHORT, index)
    fetch(chosen[:2], COHORT, index, tmp_path)
    again = ScriptedIndex()
    fetch(chosen, COHORT, again, tmp_path)
    assert again.fetched == [chosen[2].uid]


def test_a_cancer_type_that_nobody_has_is_named() -> None:
    empty = COHORT.model_copy(
        update={
            "cancer_types": {"myxoma": COHORT.cancer_types["glioma"].model_copy(
                update={"collections": ["nowhere"]}
            )}
        }
    )  # fmt: skip
    with pytest.raises(InvalidInput, match="myxoma"):
        choose(empty, ScriptedIndex())


def test_a_cohort_file_with_a_mistake_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cohort.toml").write_text("modalities = []")
    with pytest.raises(InvalidInput, match="cohort file"):
        read_cohort(tmp_path / "cohort.toml")


@pytest.mark.long
def test_the_committed_cohort_is_chosen_from_the_real_index_offline() -> None:
    idc_index = pytest.importorskip("idc_index")
    cohort = read_cohort(CHECKOUT / "recipes" / "cohort.toml")
    chosen = choose(cohort, idc_index.IDCClient())
    assert {one.cancer_type for one in chosen} == set(cohort.cancer_types)
    assert {one.split for one in chosen} == {"train", "database", "query"}
