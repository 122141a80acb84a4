"""An export holds every case once, reads anywhere, and comes back with the same answers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from dafh.cli import build
from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.errors import Conflict, DafhError, InvalidInput, Misconfigured
from dafh.imaging.image import PatientKeyer
from dafh.index import dump
from dafh.index.archives import Archives
from dafh.index.case import Case, Coding
from dafh.index.connection import Connection
from dafh.index.manifest import Folder, Part, Plan, Store, read_manifest
from dafh.index.milvus import MilvusIndex
from dafh.index.port import CaseIndex, Hit, Query
from tests.index.conftest import new_case as new_case
from tests.index.models import soon
from tests.index.servers import LiteServer

pytestmark = pytest.mark.stack

NewCase = Callable[..., Case]
KEY, CASES, QUERIES = "0f" * 32, 500, 200
PAGE = Path(__file__).resolve().parents[2] / "docs" / "codes.md"


@pytest.fixture
def archive(
    lite: LiteServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    new_case: NewCase,
) -> Iterator[MilvusIndex]:
    """An archive of a few hundred cases that the commands know of, in several files when dumped."""
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_text(KEY)
    monkeypatch.setenv("DAFH_MILVUS_URI", lite.endpoint.uri)
    monkeypatch.setenv("DAFH_PATIENT_KEY_FILE", str(key))
    monkeypatch.setattr(dump, "PART_ROWS", 60)
    monkeypatch.chdir(tmp_path)
    name = "c" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    key_id = PatientKeyer(bytes.fromhex(KEY), "default").key_id
    coding = Coding("default", name, "ab" * 32, 1, 64, key_id)
    connection = Connection(lite.endpoint, soon())
    Archives(connection, "default").create(coding, soon())
    index = MilvusIndex(connection, coding)
    labels = ("lung", "brain", "")
    cases = [
        replace(
            new_case(coding, number), label=labels[number % 3], modality=["CT", "MR"][number % 2]
        )
        for number in range(CASES)
    ]
    index.upsert(cases, soon())
    yield index
    connection.close()


def dafh(*words: str) -> str:
    """Run a command in this process; its errors are raised."""
    answer = CliRunner().invoke(build(list(words)), list(words), catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def answers(index: MilvusIndex) -> list[list[tuple[str, int]]]:
    """Return what an archive answers to many queries, by instance and distance."""

    def told(hit: Hit) -> tuple[str, int]:
        return hit.case.sop_instance_uid, hit.distance

    codes = [HashCode(hashlib.sha256(b"q%d" % number).digest()[:8]) for number in range(QUERIES)]
    return [list(map(told, index.search(Query(code, 20), soon()).hits)) for code in codes]


def test_export_wipe_and_import_give_the_same_answers(archive: MilvusIndex) -> None:
    name = archive.coding.archive
    before, cases = answers(archive), list(archive.scan(soon()))
    told = json.loads(dafh("export-codes", name, "--out", "codes", "--json"))
    assert told["rows"] == CASES
    table = pq.read_table("codes", columns=["bits", "model_version"])
    assert table.to_pylist() == [{"bits": 64, "model_version": 1}] * CASES
    connection = archive._connection
    Archives(connection, "default").delete(name, soon(), force=True)
    assert json.loads(dafh("import-codes", "codes", "--json")) == {"added": CASES}
    live = Archives(connection, "default").get(name, soon()).live
    again = MilvusIndex(connection, live)
    assert list(again.scan(soon())) == cases
    assert answers(again) == before
    assert json.loads(dafh("import-codes", "codes", "--json")) == {"unchanged": CASES}


def test_an_export_that_is_cut_off_goes_on_and_writes_no_file_twice(
    archive: MilvusIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("export-codes", archive.coding.archive, "--out", str(tmp_path / "codes"), "--json")
    write_part = dump.write_part

    def dying(index: CaseIndex, store: Store, plan: Plan, number: int, deadline: Deadline) -> Part:
        if number == 3:
            raise KeyboardInterrupt
        return write_part(index, store, plan, number, deadline)

    with monkeypatch.context() as patch:
        patch.setattr(dump, "write_part", dying)
        CliRunner().invoke(build(list(words)), list(words))
    folder = tmp_path / "codes"
    written = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.parquet")}
    assert len(written) == 3
    with pytest.raises(InvalidInput):
        read_manifest(Folder(folder))
    assert json.loads(dafh(*words))["rows"] == CASES
    now = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.parquet")}
    assert {name: now[name] for name in written} == written
    with pytest.raises(Conflict):
        dafh(*words)


def test_a_folder_that_is_not_there_or_cannot_be_made_is_said(
    archive: MilvusIndex, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="no manifest"):
        dafh("import-codes", "missing")
    assert not (tmp_path / "missing").exists()
    # Below a file.
    with pytest.raises(Misconfigured, match="cannot be written"):
        dafh("export-codes", archive.coding.archive, "--out", str(tmp_path / "key" / "codes"))


def test_parts_of_an_export_are_one_export(archive: MilvusIndex) -> None:
    name = archive.coding.archive
    whole = json.loads(dafh("export-codes", name, "--out", "whole", "--json"))
    for part in (0, 2, 1):
        told = dafh("export-codes", name, "--out", "parts", "--shard", f"{part}/3", "--json")
    assert json.loads(told)["cases"] == whole["cases"]
    files = [sorted(p.name for p in Path(one).glob("*.parquet")) for one in ("whole", "parts")]
    assert files[0] == files[1]
    assert len(files[0]) == 9


def test_a_part_that_is_run_again_after_the_end_has_nothing_to_do(archive: MilvusIndex) -> None:
    words = ("export-codes", archive.coding.archive, "--out", "parts", "--json", "--shard")
    dafh(*words, "0/2")
    told = dafh(*words, "1/2")
    files = {file.name: file.stat().st_mtime_ns for file in Path("parts").iterdir()}
    assert dafh(*words, "0/2") == told
    assert {file.name: file.stat().st_mtime_ns for file in Path("parts").iterdir()} == files
    other = replace(archive.coding, archive=f"{archive.coding.archive}-other")
    Archives(archive._connection, "default").create(other, soon())
    with pytest.raises(Conflict):
        dafh("export-codes", other.archive, *words[2:], "0/2")


def test_an_object_store_takes_and_gives_an_export(archive: MilvusIndex) -> None:
    name = archive.coding.archive
    dafh("export-codes", name, "--out", "memory://codes-test/x")
    assert fsspec.filesystem("memory").exists("/codes-test/x/_manifest.json")
    told = dafh("import-codes", "memory://codes-test/x", "--archive", f"{name}-copy", "--json")
    assert json.loads(told) == {"added": CASES}
    with pytest.raises(DafhError):
        dafh("import-codes", "memory://codes-test/y")


def test_the_examples_on_the_page_run(
    archive: MilvusIndex, capsys: pytest.CaptureFixture[str]
) -> None:
    dafh("export-codes", archive.coding.archive, "--out", "codes")
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(examples) == 3
    names: dict[str, Any] = {}
    for example in examples:
        lines = [line for line in example.splitlines() if line]
        assert sum("import" not in line for line in lines) <= 3
        exec(example, names)  # noqa: S102 - the page's own
    shown = capsys.readouterr().out
    assert re.search(r"1 +64 +CT +250\n +MR +250", shown)
    assert "(1, 64, 'CT', 250), (1, 64, 'MR', 250)" in shown
    first = np.frombuffer(names["cases"]["code"][0], np.uint8)
    distances, found = names["index"].search(first[None], 5)
    assert (distances[0, 0], found[0, 0]) == (0, 0)
