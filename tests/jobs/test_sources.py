"""Every file of a source comes once, in the same order, whatever holds it."""

from __future__ import annotations

import csv
import hashlib
import os
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dafh.errors import DafhError, InvalidInput, Unavailable
from dafh.imaging.limits import DEFAULT_LIMITS
from dafh.imaging.phantom import Phantom
from dafh_jobs.sources import Labels, check, count, entries, read_labels
from tests.jobs.reading import (
    MOST,
    bytes_of,
    dicomdir,
    faults,
    found,
    tarred,
    unreadable,
    zipped,
)


def test_a_folder_is_walked_to_its_leaves_in_order(folder: Path, made: list[Phantom]) -> None:
    names = [entry.name.removeprefix(f"{folder}/") for entry in found(folder)]
    assert names == ["a", "b.dcm", "b/IM1", "b/deep/er/IM2"]
    assert sorted(bytes_of(found(folder))) == sorted(one.data for one in made)
    assert names == [entry.name.removeprefix(f"{folder}/") for entry in found(folder)]
    assert count([str(folder)], threading.Event()) == 4


def test_links_in_circles_and_what_is_no_file_end_nothing_and_are_reported(folder: Path) -> None:
    (folder / "b" / "circle").symlink_to(folder, target_is_directory=True)
    (folder / "itself").symlink_to(folder / "itself")
    (folder / "nowhere").symlink_to(folder / "gone")
    os.mkfifo(folder / "pipe")
    read = found(folder)
    assert len(read) == 7
    assert sorted(faults(read)) == ["NOT_A_FILE", "unreadable", "unreadable"]


def test_links_to_folders_are_followed_and_what_is_met_twice_comes_once_by_its_own_path(
    folder: Path, made: list[Phantom]
) -> None:
    disk = folder.parent / "disk" / "2019"
    disk.mkdir(parents=True)
    (disk / "IM3").write_bytes(made[0].data)
    (disk / "again").symlink_to(disk)
    (folder / "2019").symlink_to(disk)
    (folder / "c").symlink_to(disk.parent)
    (folder / "a link").symlink_to(folder / "b")
    names = [entry.name.removeprefix(f"{folder}/") for entry in found(folder)]
    assert names == ["a", "b.dcm", "b/IM1", "b/deep/er/IM2", "2019/IM3"]
    (folder.parent / "all").symlink_to(folder)
    assert len(found(folder.parent / "all")) == 5
    assert count([str(folder)], threading.Event()) == 5


def test_the_rest_of_a_large_file_is_hashed_and_not_kept(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(range(256)) * 20_000)
    (entry,) = found(tmp_path)
    content = entry.read(1000)
    assert (len(content.beginning), content.size) == (1000, 256 * 20_000)
    assert content.sha256 == hashlib.sha256(bytes(range(256)) * 20_000).hexdigest()


def test_a_stamp_changes_with_its_file(folder: Path) -> None:
    before = {entry.name: entry.stamp for entry in found(folder)}
    assert all(before.values())
    (folder / "a").write_bytes(b"other")
    after = {entry.name: entry.stamp for entry in found(folder)}
    assert [name for name in before if before[name] != after[name]] == [str(folder / "a")]


def test_a_disc_whose_names_are_shown_in_small_letters_is_read(
    made: list[Phantom], tmp_path: Path
) -> None:
    disc = tmp_path / "cd"
    (disc / "d0").mkdir(parents=True)
    for number, one in enumerate(made):
        (disc / "d0" / f"i{number}").write_bytes(one.data)
    (disc / "dicomdir").write_bytes(dicomdir([["D0", f"I{number}"] for number in range(4)]))
    assert bytes_of(found(disc / "dicomdir")) == [one.data for one in made]
    read = found(disc)
    assert (len(read), unreadable(read)) == (5, 0)
    (disc / "d0" / "i1").unlink()
    read = found(disc)
    assert (len(read), unreadable(read)) == (5, 1)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_manifest_names_files_and_labels(folder: Path, kind: str) -> None:
    rows = [
        {"file": "b/IM1", "label": "lung", "cancer_type": "adenocarcinoma", "more": "1"},
        {"file": str(folder / "a"), "label": "brain", "cancer_type": "", "more": "2"},
        {"file": "missing", "label": "", "cancer_type": "", "more": ""},
    ]
    manifest = folder / f"manifest.{kind}"
    if kind == "csv":
        with manifest.open("w", newline="") as stream:
            table = csv.DictWriter(stream, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), manifest)
    read = found(manifest)
    assert [entry.labels for entry in read] == [
        Labels("lung", "adenocarcinoma"),
        Labels("brain"),
        Labels(),
    ]
    assert bytes_of(read[:2]) == [(folder / "b/IM1").read_bytes(), (folder / "a").read_bytes()]
    assert unreadable(read) == 1


def test_a_manifest_without_its_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,label\na,b\n")
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "m.parquet")
    (tmp_path / "n.parquet").write_text("no Parquet")
    for manifest in tmp_path.iterdir():
        with pytest.raises(InvalidInput, match="manifest"):
            found(manifest)


def test_a_dicomdir_names_files_and_a_folder_with_one_misses_what_is_gone(
    made: list[Phantom], tmp_path: Path
) -> None:
    disc = tmp_path / "disc"
    for number, one in enumerate(made):
        (disc / f"D{number % 2}").mkdir(parents=True, exist_ok=True)
        (disc / f"D{number % 2}" / f"I{number}").write_bytes(one.data)
    named = [["D0", "I0"], ["D1", "I1"], ["D0", "I2"], ["D1", "I3"], ["..", "..", "etc"]]
    directory = disc / "DICOMDIR"
    directory.write_bytes(dicomdir(named))
    read = found(directory)
    assert len(read) == 4
    on_disc = {file for file in directory.parent.rglob("*") if file.is_file()}
    assert {Path(entry.name) for entry in read} == on_disc - {directory}
    Path(read[0].name).unlink()
    everything = found(directory.parent)
    assert len(everything) == 5
    assert unreadable(everything) == 1


@pytest.mark.parametrize(
    ("row", "where"),
    [
        (b"na\xefve.dcm,x", "line 402"),
        (b",x", "line 402"),
        (b"a\0b,x", "line 402"),
        (b'"a\nb",x\n,y', "line 404"),
        (b"http://images.example/x,", "Row 401 .* without TLS"),
        (b"nonsense://images/x,", "Row 401 .* cannot be read here"),
        (b"http://[::1,", "Row 401 .* is none"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_before_anything_is_begun(
    tmp_path: Path, row: bytes, where: str
) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_bytes(b"file,label\n" + b"x.dcm,y\n" * 400)
    check([str(manifest)])
    manifest.write_bytes(manifest.read_bytes() + row + b"\n")
    with pytest.raises(DafhError, match=where):
        check([str(manifest)])


def test_a_short_row_and_one_of_nothing_name_no_file(tmp_path: Path) -> None:
    table = tmp_path / "m.csv"
    table.write_text("label,file\nlung,a\n\nbrain\n")
    with pytest.raises(InvalidInput, match="line 4 names no file"):
        read_labels(table)
    pq.write_table(pa.table({"file": ["a", None]}), tmp_path / "m.parquet")
    with pytest.raises(InvalidInput, match="row 2 names no file"):
        check([str(tmp_path / "m.parquet")])


def test_a_name_that_no_file_can_have_is_refused_and_ends_nothing() -> None:
    assert faults(found("a\0b")) == ["NOT_A_FILE"]


def test_an_empty_folder_is_a_share_that_is_not_mounted(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="nothing in the folder that is source 1 of 1"):
        check([str(tmp_path)])
    (tmp_path / "README").touch()
    check([str(tmp_path)])


def test_labels_reach_members_and_what_they_miss_is_counted(folder: Path, tmp_path: Path) -> None:
    members = {"CT/1": b"1", "CT/2": b"2"}
    zipped(folder / "b", members)
    tarred(tmp_path / "a.tar", ("./CT/1", b"1"), ("/CT/2", b"2"), ("CT/1", b"3"))
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n./b/IM1,x\nb/a.zip/CT/1,y\nCT/1,z\nCT/2,v\nb/gone,w\nb/a.zip,w\n")
    labels = read_labels(table)
    read = entries([str(folder), str(tmp_path / "a.tar")], DEFAULT_LIMITS, labels)
    told = [entry.labels.label for entry in read if entry.labels != Labels()]
    assert told == ["x", "y", "z", "v", "z"]
    # The one that is gone, and an archive, which is no file of images.
    assert labels.of_no_file == 2


def test_a_table_of_labels_may_hold_numbers_and_must_have_its_column(tmp_path: Path) -> None:
    table = tmp_path / "labels.parquet"
    pq.write_table(pa.table({"file": ["a", "b"], "label": [3, None]}), table)
    labels = read_labels(table)
    assert [labels.of(name) for name in "abc"] == [Labels("3"), Labels(), None]
    table = tmp_path / "labels.csv"
    table.write_text("name,label\na,b\n")
    with pytest.raises(InvalidInput, match="no column file"):
        read_labels(table)
    with pytest.raises(Unavailable):
        read_labels(tmp_path)


def test_no_entry_shows_its_name(folder: Path) -> None:
    for entry in found(folder):
        assert str(folder) not in repr(entry)
        assert str(folder) not in repr(entry.read(MOST))
