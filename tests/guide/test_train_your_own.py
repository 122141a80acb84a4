"""What "Train your own" tells people to type leads from a manifest to an archive coded anew."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dafh.imaging.phantom import phantoms
from dafh.settings import CHECKOUT

from .fences import Fence, fences
from .sandbox import Sandbox, typed

PAGE = CHECKOUT / "docs" / "train-your-own.md"
IMAGES = 60
#: Splits that the images of a class take in turn.
SPLITS = ("train", "database", "train", "query", "train")
#: What the page says, and what there is time for here.
INSTEAD = {
    "side = 128": "side = 32",
    "epochs = 30": "epochs = 1",
    "batch = 48": "batch = 16",
    "/data/images": "images",
}
#: Seconds that a block may take.
PATIENCE = 400


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Sandbox]:
    made = Sandbox(tmp_path)
    try:
        yield made
    finally:
        made.run(typed("dafh down"))


def make_corpus(folder: Path) -> None:
    """Write phantoms of two classes and their manifest; each image is a group.

    A tenth of the groups of a class is held out, and calibration needs two of one class.
    """
    folder.mkdir()
    seen: Counter[str] = Counter()
    with (folder / "manifest.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "class", "split", "group", "modality"])
        for phantom in phantoms(IMAGES, 9):
            kind = phantom.modality if phantom.modality == "CT" else "other"
            split = SPLITS[seen[kind] % len(SPLITS)]
            seen[kind] += 1
            (folder / phantom.file_name).write_bytes(phantom.data)
            rows.writerow([phantom.file_name, kind, split, phantom.file_name, phantom.modality])


def made_smaller(fence: Fence, told: set[str]) -> Fence:
    """Return a block as there is time for it; note in `told` what it says of that."""
    text = fence.text
    for large, small in INSTEAD.items():
        told |= {large} if large in text else set()
        text = text.replace(large, small)
    return replace(fence, text=text)


@pytest.mark.long
@pytest.mark.stack
@pytest.mark.timeout(1200)
def test_the_page_leads_from_a_manifest_to_an_archive_coded_anew(reader: Sandbox) -> None:
    make_corpus(reader.folder / "corpus")
    reader.run(typed("dafh up --detach && dafh index images"), PATIENCE)
    told: set[str] = set()
    blocks = [made_smaller(fence, told) for fence in fences(PAGE)]
    assert told == INSTEAD.keys()
    (recipe,) = [fence for fence in blocks if fence.language == "toml"]
    (reader.folder / "recipe.toml").write_text(recipe.text)
    commands = [fence for fence in blocks if fence.language == "sh"]
    assert len(commands) == 3
    for fence in commands:
        reader.run(fence, PATIENCE)
    figures = json.loads((reader.folder / "figures.json").read_text())
    assert figures["model"]["side"] == 32
    assert figures["64"]["map_at_10"]["queries"] > 0
    answer = subprocess.run(
        [Path(sys.executable).with_name("dafh"), "retrieve", "some-image.dcm", "--json"],
        cwd=reader.folder, env=reader.settings, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["query"]["modelVersion"] == 3
