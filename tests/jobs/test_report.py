"""A report counts every file once, whatever came at the same time, and in however many parts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from dafh.errors import InvalidInput
from dafh_jobs.journal import Outcome, Record
from dafh_jobs.report import FACTS, TABLE, merge_reports, rows_of, tallied, write_report

ABOUT = {
    "tenant": "default",
    "archive": "a",
    "model_version": 1,
    "model_hash": "0" * 64,
    "complete": True,
    "seconds": 1.0,
    "images_per_second": 1.0,
}


def record(number: int, sha256: str, labels: str = "", **fields: Any) -> Record:  # noqa: ANN401 - those of a record
    return Record(b"%d" % number, "", labels, sha256, **fields)


def unread(*numbers: int) -> list[Record]:
    kind = {"outcome": Outcome.UNREADABLE, "reason": "SOURCE_UNREADABLE"}
    return [record(number, "", **kind) for number in numbers]


@pytest.fixture
def parts(tmp_path: Path) -> Callable[..., list[Path]]:
    """Return what writes the report of each part."""

    def make(*records: Iterable[Record]) -> list[Path]:
        folders = [tmp_path / str(number) for number in range(len(records))]
        for number, (folder, told) in enumerate(zip(folders, records, strict=True)):
            write_report(folder, rows_of(told), {**ABOUT, "shard": f"{number}/{len(records)}"})
        return folders

    return make


@pytest.mark.parametrize("order", [1, -1])
def test_copies_that_are_met_at_the_same_time_are_counted_once(order: int) -> None:
    """Neither knew of the other: the index took one, and had it already when the other came."""
    alike = [record(1, "aa", added=1), record(2, "aa", unchanged=1)][::order]
    later = record(3, "aa", twin=True, added=1)
    facts = tallied(rows_of([*alike, later, record(4, "bb", twin=True, added=1)]), ABOUT)
    assert facts["outcomes"] == {"added": 2}
    # The last one's twin was not met: it was moved.
    assert facts["noticed"] == {"copy": 2, "moved": 1}


def test_the_same_bytes_with_other_labels_are_no_copy() -> None:
    alike = [record(1, "aa", "x", added=1), record(2, "aa", "y", metadata_conflict=1)]
    facts = tallied(rows_of(alike), ABOUT)
    assert facts["outcomes"] == {"added": 1, "metadata_conflict": 1}
    assert facts["noticed"] == {}


def test_what_no_part_could_read_is_told_once(
    parts: Callable[..., list[Path]], tmp_path: Path
) -> None:
    told = parts(
        [*unread(1, 2), record(3, "aa", added=1)],
        [*unread(1, 2, 4), record(5, "bb", added=1)],
        unread(1, 2),
    )
    merged = merge_reports(told, tmp_path / "whole")
    assert merged["skipped"] == {"SOURCE_UNREADABLE": 3}
    assert (merged["files"], merged["indexed"]) == (5, 2)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (TABLE, b"no table"),
        (TABLE, None),
        (FACTS, b"[]"),
        (FACTS, b'{"tenant": "default"}'),
        (FACTS, None),
    ],
)
def test_a_damaged_report_is_said(
    parts: Callable[..., list[Path]], tmp_path: Path, name: str, content: bytes | None
) -> None:
    told = parts([record(1, "aa", added=1)], unread(2))
    if content is None:
        (told[1] / name).unlink()
    else:
        (told[1] / name).write_bytes(content)
    with pytest.raises(InvalidInput, match="no report of a job"):
        merge_reports(told, tmp_path / "whole")


def test_a_table_that_is_cut_in_the_middle_is_said(
    parts: Callable[..., list[Path]], tmp_path: Path
) -> None:
    told = parts([record(number, f"{number:064}", added=1) for number in range(20_000)], [])
    table = told[0] / TABLE
    whole = table.read_bytes()
    table.write_bytes(whole[:200_000] + bytes(200_000) + whole[400_000:])
    with pytest.raises(InvalidInput, match="no report of a job"):
        merge_reports(told, tmp_path / "whole")
    assert not (tmp_path / "whole" / TABLE).exists()


def test_reports_of_other_jobs_do_not_merge(
    parts: Callable[..., list[Path]], tmp_path: Path
) -> None:
    told = parts([record(1, "aa")], [record(2, "bb")])
    facts = json.loads((told[1] / FACTS).read_text())
    for other in ({"archive": "b"}, {"shard": "0/2"}, {"shard": "2/3"}):
        (told[1] / FACTS).write_text(json.dumps({**facts, **other}))
        with pytest.raises(InvalidInput, match="not those of all shards"):
            merge_reports(told, tmp_path / "whole")
