"""The page on speed is what its code makes of the figures that are kept."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from bench import jobs
from bench.index import steps
from bench.index_page import write_page
from bench.report import DOCS, KEPT, write
from bench.waterfall import steps_of

PICTURES = ("concurrency.svg", "memory.svg", "rivals.svg", "variants.svg", "waterfall.svg")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write(KEPT, folder / "performance.md", folder)
    return folder


def test_the_page_is_made_of_what_is_kept(made: Path) -> None:
    assert (DOCS / "performance.md").read_text() == (made / "performance.md").read_text()


@pytest.mark.parametrize("name", ["gateway.md", *PICTURES])
def test_what_stands_beside_it_is_made_of_what_is_kept(made: Path, name: str) -> None:
    assert (KEPT / name).read_text() == (made / name).read_text()


def test_the_page_on_search_is_made_of_what_is_kept(tmp_path: Path) -> None:
    kept = tmp_path / "index"
    shutil.copytree(KEPT / "index", kept)
    write_page(list(steps()), kept, tmp_path / "index.md")
    assert (tmp_path / "index.md").read_text() == (KEPT / "index.md").read_text()
    assert (kept / "growth.svg").read_text() == (KEPT / "index" / "growth.svg").read_text()


def test_the_page_on_jobs_is_made_of_what_is_kept() -> None:
    kept = json.loads((KEPT / "jobs.json").read_text())
    assert (KEPT / "jobs.md").read_text() == jobs.page(kept)


def test_a_changed_figure_changes_the_page(tmp_path: Path, made: Path) -> None:
    kept = tmp_path / "kept"
    shutil.copytree(KEPT, kept)
    told = json.loads((kept / "rivals.json").read_text())
    told["candidates"]["pHash"]["map_at_10"] = 0.123456
    (kept / "rivals.json").write_text(json.dumps(told))
    write(kept, tmp_path / "performance.md", tmp_path)
    assert "0.123" in (tmp_path / "performance.md").read_text()
    assert "0.123" not in (made / "performance.md").read_text()
    assert (tmp_path / "rivals.svg").read_text() != (made / "rivals.svg").read_text()


def test_the_steps_of_a_query_last_as_long_as_the_whole() -> None:
    parts = json.loads((KEPT / "gateway.json").read_text())["parts_ms"]
    assert sum(step.ms for step in steps_of(parts)) == pytest.approx(parts["query"])


def test_pictures_are_small_and_bring_nothing_from_elsewhere() -> None:
    for name in PICTURES:
        text = (KEPT / name).read_text()
        assert len(text) < 100_000
        assert not re.search(r"href=\"(?!#)|url\((?!#)", text), name
