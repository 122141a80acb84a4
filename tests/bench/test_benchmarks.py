"""Every benchmark says how it is used, and runs to its end when it is told to be short."""

from __future__ import annotations

import csv
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dafh.imaging.phantom import phantoms
from dafh.settings import CHECKOUT

#: Module -> arguments of a run of seconds; OUT, MANIFEST and ROOT stand for folders and files.
SHORT: dict[str, str] = {
    "bench.encoder": "--rounds 2 --out OUT",
    "bench.gateway": "--out OUT --cases 1000 --queries 2 --seconds 0.5 --clients 1 2",
    "bench.imaging": "--rounds 2 --out OUT",
    "bench.index": "--rows 1000",
    "bench.jobs": "--files 20 --sizes 20 --out OUT",
    "bench.report": "--page OUT/performance.md --pages OUT",
    "bench.rivals": "--out OUT --images 20 --cases 1000 --queries 2 --seconds 0.5 --no-corpus "
    "--only 'DAFH, 64 bits' --only 'floats, faiss' --only 'codes, served naively' --only pHash",
    "bench.servers": "--seconds 0.2",
    "bench.shared_memory": "--turns 1",
    "bench.strangeness": "--manifest MANIFEST --root ROOT --study ROOT/study.toml --runs OUT/runs "
    "--out OUT",
    "bench.variants": "--manifest MANIFEST --root ROOT --side 96 --rounds 1 --out OUT",
}
#: Those that start servers, and what takes a minute.
STACK = {"bench.gateway", "bench.index", "bench.jobs", "bench.rivals", "bench.shared_memory"}
LONG = {"bench.index", "bench.jobs", "bench.rivals", "bench.variants"}
#: What a run leaves in OUT.
LEFT = {
    "bench.encoder": "encoder.json",
    "bench.gateway": "gateway.json",
    "bench.imaging": "imaging.md",
    "bench.jobs": "jobs.md",
    "bench.report": "performance.md",
    "bench.rivals": "rivals.json",
    "bench.strangeness": "strangeness.json",
    "bench.variants": "variants.json",
}
#: A fold, and a training that takes seconds.
STUDY = """
[recipe]
side = 32
epochs = 1
batch = 8
phantoms = 8
validate_every = 1

[folds.without-heads]
classes = ["phantom ct head"]
"""


def run(module: str, *words: str, seconds: float) -> str:
    """Run a benchmark; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def marks(module: str) -> list[pytest.MarkDecorator]:
    stack = [pytest.mark.stack] if module in STACK else []
    return stack + ([pytest.mark.long, pytest.mark.timeout(600)] if module in LONG else [])


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write phantoms of three splits, what they are, and a study of strangers."""
    folder = tmp_path_factory.mktemp("phantoms")
    made = list(phantoms(40, 3))
    rows = [
        (one.file_name, one.label, "train" if n >= 16 else "query" if n % 4 else "database")
        for n, one in enumerate(made)
    ]
    (folder / "study.toml").write_text(STUDY)
    for one in made:
        (folder / one.file_name).write_bytes(one.data)
    with (folder / "classes.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("file", "class", "split"), *rows])
    return folder / "classes.csv"


def test_every_benchmark_is_tried_here() -> None:
    modules = {
        ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__main__")
        for path in (CHECKOUT / "bench").rglob("*.py")
        if 'if __name__ == "__main__"' in path.read_text()
    }
    assert modules == set(SHORT)


@pytest.mark.parametrize("module", SHORT)
def test_it_says_how_it_is_used(module: str) -> None:
    assert "usage" in run(module, "--help", seconds=60).lower()


@pytest.mark.parametrize("module", [pytest.param(module, marks=marks(module)) for module in SHORT])
def test_a_short_run_ends_well(module: str, tmp_path: Path, manifest: Path) -> None:
    places = {"OUT": tmp_path, "MANIFEST": manifest, "ROOT": manifest.parent}
    words = [
        str(Path(places[word.partition("/")[0]], *word.split("/")[1:]))
        if word.partition("/")[0] in places
        else word
        for word in shlex.split(SHORT[module])
    ]
    told = run(module, *words, seconds=580)
    if module in LEFT:
        left = (tmp_path / LEFT[module]).read_text()
        assert json.loads(left) if LEFT[module].endswith("json") else left.startswith("# ")
    else:
        assert told.strip()
