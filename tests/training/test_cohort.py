from __future__ import annotations

import csv
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from dafh.deadline import Deadline
from dafh.errors import InvalidInput, Reason, Unavailable
from dafh.evaluation.manifest import read_manifest
from dafh.imaging.phantom import phantoms
from dafh.settings import CHECKOUT
from dafh.training import cohort as under_test
from dafh.training.cohort import (
    COLUMNS,
    IN_A_ROW,
    MANIFEST,
    Cohort,
    Series,
    choose,
    download_with,
    fetch,
    patients,
    read_cohort,
    write_series,
)
from dafh.training.cohort_commands import app

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
    """Answers like the real client."""

    #: Does what it is told and brings nothing.
    s5cmdPath = "true"  # noqa: N815  # named by the real one

    def sql_query(self, sql_query: str) -> Frame:
        assert "BETWEEN 2 AND 50" in sql_query
        rows = [
            {"SeriesInstanceUID": f"1.2.{number}", "PatientID": f"SECRET-{number // 2}",
             "collection_id": collection, "Modality": modality, "license_short_name": licence,
             "series_size_MB": 1.5, "aws_bucket": "bucket", "crdc_series_uuid": f"folder-{number}"}
            for number, (collection, modality, licence) in enumerate(
                [("one", "CT", "CC BY 4.0")] * 10
                + [("two", "CT", "CC BY 4.0"), ("one", "MR", "CC BY 4.0"),
                   ("one", "CT", "CC BY-NC 4.0")]
            )
        ]  # fmt: skip
        return Frame(rows)


class Downloads:
    """Brings phantoms and a file that is no image; for some series, nothing.

    Parameters
    ----------
    failing
        Series for which an error is raised.
    silent
        Series for which nothing comes, and nothing is said.
    """

    def __init__(self, failing: list[str] | None = None, silent: list[str] | None = None) -> None:
        self.failing = failing or []
        self.silent = silent or []
        self.fetched: list[str] = []

    def __call__(self, series: Series, folder: Path, deadline: Deadline) -> None:
        assert list(folder.iterdir()) == []
        # The time grows with the size.
        assert deadline.remaining("a test") > series.megabytes
        self.fetched.append(series.uid)
        if series.uid in self.silent:
            return
        for number, phantom in enumerate(phantoms(6, 3)):
            (folder / f"{number}.dcm").write_bytes(phantom.data)
            if series.uid in self.failing:
                raise Unavailable(Reason.SOURCE_UNREADABLE, "The line broke.")
        (folder / "broken.dcm").write_bytes(b"nothing")


FILES = {f"folder/{number}.dcm": b"DICM" * 1000 for number in range(5)}


class Store(BaseHTTPRequestHandler):
    """Speaks S3 as far as s5cmd asks, for one bucket."""

    #: Names of files that are listed and cannot be read.
    lost: tuple[str, ...] = ()
    #: Set when a test is over; until then files are waited for where the store is stuck.
    over = threading.Event()
    stuck = False

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        name = path.removeprefix("/bucket/")
        if query:
            listed = "".join(
                f"<Contents><Key>{key}</Key><Size>{len(data)}</Size>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                for key, data in FILES.items()
            )
            self._answer(200, f"<ListBucketResult>{listed}</ListBucketResult>".encode())
        elif self.stuck:
            self.over.wait()
        elif name in self.lost:
            self._answer(404, b"")
        else:
            self._answer(200, FILES[name])

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Store]]:
    class Own(Store):
        over = threading.Event()

    with ThreadingHTTPServer(("127.0.0.1", 0), Own) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        serving.start()
        monkeypatch.setattr(under_test, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield Own
        Own.over.set()
        server.shutdown()
        serving.join()


@pytest.fixture
def s5cmd() -> str:
    try:
        files = distribution("s5cmd").files or []
    except PackageNotFoundError:
        pytest.skip("s5cmd is not installed")
    return next(str(one.locate()) for one in files if str(one).startswith("s5cmd/bin/"))


def one_series(uid: str = "1.2.3", group: str = "someone") -> Series:
    return Series(uid=uid, collection="one", modality="CT", cancer_type="glioma", organ="brain",
                  licence="CC BY 4.0", megabytes=1.0, source="s3://bucket/folder/*",
                  group=group)  # fmt: skip


def test_one_series_a_patient_of_the_wanted_kind_is_chosen_the_same_each_time() -> None:
    chosen = choose(COHORT, ScriptedIndex())
    assert chosen == choose(COHORT, ScriptedIndex())
    assert len(chosen) == 3
    assert len({one.group for one in chosen}) == 3
    assert {(one.collection, one.modality, one.licence) for one in chosen} == {
        ("one", "CT", "CC BY 4.0")
    }


def test_what_was_fetched_is_a_manifest_that_can_be_trained_on(tmp_path: Path) -> None:
    chosen = choose(COHORT, ScriptedIndex())
    assert fetch(chosen, COHORT, Downloads(), tmp_path) == []
    manifest = tmp_path / MANIFEST
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
    chosen = choose(COHORT, ScriptedIndex())
    fetch(chosen[:2], COHORT, Downloads(), tmp_path)
    again = Downloads()
    fetch(chosen, COHORT, again, tmp_path)
    assert again.fetched == [chosen[2].uid]


def test_a_series_that_did_not_come_is_left_out_and_tried_again(tmp_path: Path) -> None:
    chosen = choose(COHORT, ScriptedIndex())
    bad = Downloads(failing=[chosen[0].uid], silent=[chosen[1].uid])
    heard: list[str] = []
    assert fetch(chosen, COHORT, bad, tmp_path, heard.append) == chosen[:2]
    assert bad.fetched == [one.uid for one in chosen]
    assert "line broke" in heard[0]
    assert "no file came" in heard[1]
    entries = read_manifest(tmp_path / MANIFEST, tmp_path)
    assert {entry.group for entry in entries} == {chosen[2].group}

    again = Downloads()
    assert fetch(chosen, COHORT, again, tmp_path) == []
    assert again.fetched == [one.uid for one in chosen[:2]]
    entries = read_manifest(tmp_path / MANIFEST, tmp_path)
    assert {entry.group for entry in entries} == {one.group for one in chosen}


def test_a_series_of_which_nothing_can_be_shown_is_not_fetched_again(tmp_path: Path) -> None:
    def fetch_text(_: Series, folder: Path, __: Deadline) -> None:
        (folder / "broken.dcm").write_bytes(b"nothing")

    assert fetch([one_series()], COHORT, fetch_text, tmp_path) == []
    again = Downloads()
    assert fetch([one_series()], COHORT, again, tmp_path) == []
    assert again.fetched == []


def test_without_a_network_fetching_stops_early_and_says_what_to_do(tmp_path: Path) -> None:
    many = [one_series(f"1.2.{number}", f"{number}") for number in range(3 * IN_A_ROW)]
    none = Downloads(silent=[one.uid for one in many])
    with pytest.raises(Unavailable, match=f"{IN_A_ROW} series .* network") as caught:
        fetch(many, COHORT, none, tmp_path)
    assert caught.value.reason is Reason.SOURCE_UNREADABLE
    assert len(none.fetched) == IN_A_ROW


def test_failures_here_and_there_do_not_stop_the_others(tmp_path: Path) -> None:
    many = [one_series(f"1.2.{number}", f"{number}") for number in range(2 * IN_A_ROW)]
    good = many[IN_A_ROW - 1]
    failing = [one for one in many if one is not good][:-1]
    some = Downloads(failing=[one.uid for one in failing])
    assert fetch(many, COHORT, some, tmp_path) == failing


def test_the_files_of_a_series_come(store: type[Store], s5cmd: str, tmp_path: Path) -> None:
    download_with(s5cmd, one_series(), tmp_path, Deadline.after(60))
    came = {f"folder/{path.name}": path.read_bytes() for path in tmp_path.iterdir()}
    assert came == FILES


def test_half_a_series_is_none(store: type[Store], s5cmd: str, tmp_path: Path) -> None:
    store.lost = ("folder/3.dcm",)
    with pytest.raises(Unavailable, match="404") as caught:
        download_with(s5cmd, one_series(), tmp_path, Deadline.after(60))
    assert str(tmp_path) not in str(caught.value)


def test_a_server_that_says_nothing_more_is_given_up(
    store: type[Store], s5cmd: str, tmp_path: Path
) -> None:
    store.stuck = True
    with pytest.raises(Unavailable, match="longer than 1 s"):
        download_with(s5cmd, one_series(), tmp_path, Deadline.after(1))


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command's, for a cohort of two classes, with the scripted index as the real one."""
    (tmp_path / "cohort.toml").write_text(
        """
        modalities = ["CT"]
        licences = ["CC BY 4.0"]
        patients = 5
        series_slices = [2, 50]
        [cancer_types.glioma]
        collections = ["one"]
        [cancer_types.sarcoma]
        collections = ["two"]
        """
    )
    monkeypatch.setitem(sys.modules, "idc_index.index", SimpleNamespace(IDCClient=ScriptedIndex))
    monkeypatch.setitem(sys.modules, "idc_index", SimpleNamespace())
    return ["idc", "--cohort", str(tmp_path / "cohort.toml"), "--out", str(tmp_path / "out")]


def test_who_chooses_sees_the_patients_of_each_split_and_which_classes_lack_some(
    arguments: list[str],
) -> None:
    answer = CliRunner().invoke(app, [*arguments, "--choose-only"], catch_exceptions=False)
    assert answer.exit_code == 0
    chosen = choose(read_cohort(Path(arguments[2])), ScriptedIndex())
    counts = patients(chosen)
    assert {name: count.total() for name, count in counts.items()} == {
        "ct_glioma": 5, "ct_sarcoma": 1,
    }  # fmt: skip
    lines = answer.stderr.splitlines()
    for name, count in counts.items():
        row = next(line for line in lines if name in line).split("│")
        assert [int(cell) for cell in row[2:6]] == [
            count.total(), count["train"], count["query"], count["database"],
        ]  # fmt: skip
    for split in ("train", "query", "database"):
        lacking = [name for name, count in counts.items() if not count[split]]
        warnings = [line for line in lines if f"warning: no {split} patients" in line]
        assert warnings == (
            [f"warning: no {split} patients: {', '.join(lacking)}"] if lacking else []
        )
    # One patient cannot be in three splits.
    assert "warning" in answer.stderr


def test_a_call_that_left_series_out_does_not_say_that_all_is_well(arguments: list[str]) -> None:
    cohort = Path(arguments[2])
    cohort.write_text(cohort.read_text().replace("patients = 5", "patients = 1"))
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 1
    assert "2 series did not come" in answer.stderr


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
