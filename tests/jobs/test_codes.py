"""An export holds every case once, reads anywhere, and comes back with the same answers."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from dafh.cli import build
from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.errors import (
    Conflict,
    DeadlineExceeded,
    InvalidInput,
    Misconfigured,
    Unavailable,
)
from dafh.imaging.image import PatientKeyer
from dafh.index import dump
from dafh.index.archives import Archives
from dafh.index.case import Case, Coding
from dafh.index.connection import Connection
from dafh.index.manifest import (
    MANIFEST,
    PLAN,
    Folder,
    Manifest,
    Part,
    Plan,
    Store,
    read_manifest,
    read_plan,
)
from dafh.index.milvus import MilvusIndex
from dafh.index.port import CaseIndex, Hit, Query
from dafh_jobs import codes
from dafh_jobs.shard import Shard
from tests.index.conftest import new_case as new_case
from tests.index.models import soon
from tests.index.servers import LiteServer
from tests.jobs.jobs import DAFH

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


def test_a_part_that_waits_while_another_finishes_all_is_done_too(
    archive: MilvusIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dump, "PART_ROWS", CASES)
    monkeypatch.setattr(codes, "PLAN_S", 9.0)
    # It looks once before there is a plan, and again when that is gone.
    monkeypatch.setattr(codes, "_GLANCE", 3.0)
    folder = Path("parts")

    def export(number: int) -> Manifest | None:
        part = Shard(number, 3)
        return codes._export_part(archive, Folder(folder), never_erased, part, lambda *_: None)

    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(export, number) for number in (1, 2)]
        time.sleep(0.5)
        made = export(0)
        assert not any(one.done() for one in waiting)
        assert [one.result(60) for one in waiting] == [made, made]
    assert Folder(folder).names() == [MANIFEST, "cases-00000-of-00001.parquet"]


def test_parts_that_run_at_once_make_one_export(archive: MilvusIndex) -> None:
    words = [DAFH, "export-codes", archive.coding.archive, "--out", "parts", "--shard"]
    parts = [
        subprocess.Popen([*words, f"{part}/3"], stderr=subprocess.PIPE, text=True)
        for part in (2, 1, 0)
    ]
    for part in parts:
        _, said = part.communicate(timeout=240)
        assert part.returncode == 0, said
    assert read_manifest(Folder(Path("parts"))).rows == CASES


def test_parts_that_finish_at_once_write_one_manifest(archive: MilvusIndex) -> None:
    both, store = Barrier(2), Folder(Path("parts"))

    class Together(Folder):
        """A folder in which each waits for the other before it writes the manifest."""

        def write(self, name: str, content: bytes) -> None:
            if name == MANIFEST:
                both.wait(60)
            super().write(name, content)

    plan = dump.begin(archive, store, never_erased, soon())
    for number in range(plan.parts):
        dump.write_part(archive, store, plan, number, soon())
    parts = [dump.written_part(store, plan, number) for number in range(plan.parts)]
    with ThreadPoolExecutor(2) as threads:
        made = [
            threads.submit(dump.finish, Together(store.path), plan, list(filter(None, parts)))
            for _ in range(2)
        ]
        assert made[0].result(60) == made[1].result(60) == read_manifest(store)
    assert PLAN not in store.names()


def test_parts_that_an_erasure_comes_between_start_again_with_part_0(
    archive: MilvusIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codes, "PLAN_S", 1.0)
    name = archive.coding.archive
    words = ("export-codes", name, "--out", "parts", "--json", "--shard")
    dafh(*words, "0/2")
    erased = next(archive.scan(soon())).id
    dafh("archive", "erase", name, "--case", erased, "--yes")
    plan = read_plan(Folder(Path("parts")))
    # Only part 0 may make another plan: else each makes its own.
    with pytest.raises(DeadlineExceeded):
        dafh(*words, "1/2")
    assert read_plan(Folder(Path("parts"))) == plan
    dafh(*words, "0/2")
    assert json.loads(dafh(*words, "1/2"))["rows"] == CASES - 1
    assert json.loads(dafh("import-codes", "parts", "--json")) == {"unchanged": CASES - 1}


def test_a_store_that_does_not_answer_is_said_in_a_sentence(archive: MilvusIndex) -> None:
    away = "http://127.0.0.1:9/x"
    with pytest.raises(Unavailable, match="object store"):
        dafh("export-codes", archive.coding.archive, "--out", away)
    with pytest.raises(Unavailable, match="object store"):
        dafh("import-codes", away)


def never_erased(deadline: Deadline) -> int:
    del deadline
    return 0


def test_an_object_store_takes_and_gives_an_export(archive: MilvusIndex) -> None:
    name = archive.coding.archive
    dafh("export-codes", name, "--out", "memory://codes-test/x")
    assert fsspec.filesystem("memory").exists("/codes-test/x/_manifest.json")
    told = dafh("import-codes", "memory://codes-test/x", "--archive", f"{name}-copy", "--json")
    assert json.loads(told) == {"added": CASES}
    with pytest.raises(InvalidInput, match="no manifest"):
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
