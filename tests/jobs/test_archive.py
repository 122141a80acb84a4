"""``dafh archive`` looks after archives of a real Milvus Lite, from creation to deletion."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dafh.errors import Conflict, DafhError, FailedPrecondition, InvalidInput, NotFound
from dafh.imaging.image import PatientKeyer
from dafh.index.archives import Archives
from dafh.index.case import Case, Coding
from dafh.index.connection import Connection
from dafh.index.live import LiveArchive
from dafh.index.milvus import MilvusIndex
from dafh_jobs.archive import app
from tests.index.conftest import lite as lite
from tests.index.conftest import new_case as new_case
from tests.index.models import arrival, second, soon
from tests.index.servers import LiteServer

pytestmark = pytest.mark.stack

NewCase = Callable[..., Case]
KEY = "0f" * 32


@pytest.fixture
def connection(
    lite: LiteServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Connection]:
    """Return a connection to the server that the commands are told of."""
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_text(KEY)
    monkeypatch.setenv("DAFH_MILVUS_URI", lite.endpoint.uri)
    monkeypatch.setenv("DAFH_PATIENT_KEY_FILE", str(key))
    connection = Connection(lite.endpoint, soon())
    yield connection
    connection.close()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Return the name of an archive that only this test uses."""
    return "x" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]


def dafh(*words: str, answer: str = "") -> str:
    """Run a command in this process; its errors are raised."""
    result = CliRunner().invoke(app, list(words), input=answer, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(kind: type[DafhError], *words: str) -> None:
    with pytest.raises(kind):
        dafh(*words)


def made(connection: Connection, name: str) -> Coding:
    dafh("create", name)
    return Archives(connection, "default").get(name, soon()).live


def test_an_archive_is_made_shown_and_deleted_by_commands(
    connection: Connection, name: str, new_case: NewCase
) -> None:
    coding = made(connection, name)
    assert coding.key_id == PatientKeyer(bytes.fromhex(KEY), "default").key_id
    assert coding.bits == 64
    dafh("create", name)
    refused(Conflict, "create", name, "--bits", "32")
    refused(InvalidInput, "create", "no name")
    assert name in {one["archive"] for one in json.loads(dafh("list", "--json"))}
    assert name in dafh("list")
    assert "[]" in dafh("list", "--json", "--tenant", "nobody")
    MilvusIndex(connection, coding).upsert(
        [new_case(coding, number) for number in range(3)], soon()
    )
    shown = json.loads(dafh("show", name, "--json"))["codings"]
    assert [(one["live"], one["cases"], one["searched"]) for one in shown] == [(True, 3, "exactly")]
    assert "exactly" in dafh("fit", name)
    assert coding.key in dafh("show", name)
    refused(FailedPrecondition, "delete", name, "--yes")
    # Without a word nothing goes.
    assert CliRunner().invoke(app, ["delete", name, "--force"], input="n\n").exit_code == 1
    assert Archives(connection, "default").get(name, soon()).live == coding
    dafh("delete", name, "--force", answer="y\n")
    refused(NotFound, "show", name)


def test_an_archive_is_switched_and_back_by_commands(
    connection: Connection, name: str, new_case: NewCase
) -> None:
    coding = made(connection, name)
    other = second(coding)
    archives = Archives(connection, "default")
    archives.add_coding(other, soon())
    case = new_case(coding, 1)
    LiveArchive(connection, "default", name).write([arrival(case, coding)], soon())
    assert case.id in dafh("switch", name, other.key, "--dry-run")
    refused(FailedPrecondition, "switch", name, other.key)
    refused(NotFound, "switch", name, "0" * 16)
    assert archives.get(name, soon()).live == coding
    dafh("switch", name, other.key, "--allow-missing")
    assert archives.get(name, soon()).live == other
    refused(FailedPrecondition, "drop-coding", name, other.key, "--yes")
    dafh("switch", name, coding.key)
    dafh("drop-coding", name, other.key, "--yes")
    assert len(archives.get(name, soon()).codings) == 1


def test_an_archive_is_dumped_and_loaded_by_commands(
    connection: Connection, name: str, new_case: NewCase, tmp_path: Path
) -> None:
    coding = made(connection, name)
    cases = [new_case(coding, number) for number in range(30)]
    MilvusIndex(connection, coding).upsert(cases, soon())
    out = tmp_path / "dump"
    told = json.loads(dafh("dump", name, "--out", str(out), "--json"))
    assert told["rows"] == 30
    refused(Conflict, "dump", name, "--out", str(out))
    dafh("delete", name, "--force", "--yes")
    assert json.loads(dafh("load", str(out), "--json")) == {"added": 30}
    assert json.loads(dafh("load", str(out), "--json")) == {"unchanged": 30}
    again = json.loads(dafh("dump", name, "--out", str(tmp_path / "again"), "--json"))
    assert again["cases"] == told["cases"]
    copy = f"{name}-copy"
    assert json.loads(dafh("load", str(out), "--archive", copy, "--json")) == {"added": 30}
    refused(FailedPrecondition, "load", str(out), "--tenant", "other")
    with pytest.raises(NotFound):
        Archives(connection, "other").get(name, soon())


def test_cases_are_erased_by_commands(connection: Connection, name: str, new_case: NewCase) -> None:
    coding = made(connection, name)
    index = MilvusIndex(connection, coding)
    cases = [new_case(coding, number) for number in range(20)]
    unknown = replace(new_case(coding, 100), patient_key=cases[0].patient_key.__class__(""))
    index.upsert([*cases, unknown], soon())
    refused(InvalidInput, "erase", name, "--yes")
    refused(InvalidInput, "erase", name, "--study", "1.2", "--case", "a", "--yes")
    refused(NotFound, "erase", name, "--patient-of", "0" * 32, "--yes")
    refused(InvalidInput, "erase", name, "--patient-of", unknown.id, "--yes")
    # Of each patient there are eight cases, of each study four.
    assert "8 cases would be erased" in dafh(
        "erase", name, "--patient-of", cases[0].id, "--dry-run"
    )
    assert index.count(soon()) == 21
    assert "8 cases erased" in dafh("erase", name, "--patient-of", cases[0].id, "--yes")
    study = cases[8].study_instance_uid
    assert "4 cases erased" in dafh("erase", name, "--study", study, answer="y\n")
    one = ["erase", name, "--case", cases[12].id, "--case", cases[13].id, "--yes"]
    assert "2 cases erased" in dafh(*one)
    left = sorted(case.id for case in [*cases[14:], unknown])
    assert [case.id for case in index.scan(soon())] == left
