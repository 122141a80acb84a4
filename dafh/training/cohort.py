"""Cohorts of the Imaging Data Commons: which series, which slices, and the manifest of them.

The choice is made from the index that the package `idc-index` carries, so it needs no internet;
only fetching the pixels does.
"""

from __future__ import annotations

import csv
import hashlib
import shutil
import subprocess
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dafh.deadline import Deadline
from dafh.errors import InvalidInput, Reason, Unavailable
from dafh.imaging.decode import REPRESENTATIVE, decode

COLUMNS = (
    "file", "class", "modality", "organ", "finding", "cancer_type", "is_cancer", "split",
    "patient_id", "group", "group_kind", "source_repo", "source_path", "width", "height",
    "pixel_sha256",
)  # fmt: skip
MANIFEST = "manifest.csv"
SERIES = "series.csv"
#: Side at which slices are compared.
GLANCE = 64
QUERY = (
    "SELECT SeriesInstanceUID, PatientID, collection_id, Modality, license_short_name, "
    "series_size_MB, aws_bucket, crdc_series_uuid FROM index"
)
#: Of the patients of a class, by the hash of who they are: the rest is the database.
SPLITS = (("train", 0.6), ("query", 0.7), ("database", 1.0))
#: Where the buckets of the index are.
ENDPOINT = "https://s3.amazonaws.com"
#: Of a request. The program's own ten wait two minutes for a network that is not there.
RETRIES = 5
#: What a download may take: seconds, and more of them by the slowest line, in MB/s.
GRACE_S = 60.0
SLOWEST = 0.25
#: So many series one after another that do not come are no accident: there is no network.
IN_A_ROW = 5


class CancerType(BaseModel):
    """Where images of one cancer type come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    collections: list[str] = Field(min_length=1)
    organ: str = ""
    #: In place of the cohort's.
    modalities: list[str] = []


class Cohort(BaseModel):
    """A cohort file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    modalities: list[str] = Field(min_length=1)
    #: Names as the index writes them; a series under another licence is not taken.
    licences: list[str] = Field(min_length=1)
    #: Most patients of a cancer type in a modality; one series of each.
    patients: int = Field(ge=1)
    #: Slices taken of a series.
    slices: int = Field(default=3, ge=1)
    #: Least and most slices that a series may have.
    series_slices: tuple[int, int] = (20, 600)
    cancer_types: dict[str, CancerType]


@dataclass(frozen=True, slots=True)
class Series:
    """One chosen series."""

    uid: str
    collection: str
    modality: str
    cancer_type: str
    organ: str
    licence: str
    megabytes: float
    #: Where its files are: ``s3://BUCKET/FOLDER/*``.
    source: str
    #: Who it is of, as a digest: the collection's own pseudonym is not passed on.
    group: str

    @property
    def class_name(self) -> str:
        """The class that its images are of."""
        return f"{self.modality.lower()}_{self.cancer_type.replace(' ', '_')}"

    @property
    def split(self) -> str:
        """The split of its patient."""
        place = int(_digest("split", self.group)[:8], 16) / 2**32
        return next(name for name, upper in SPLITS if place < upper)


class Index(Protocol):
    """What is asked of `idc_index.IDCClient`."""

    @property
    def sql_query(self) -> Callable[[str], Any]:
        """Returns the rows of a query over the table ``index``, as a pandas frame."""
        ...


#: Brings all files of a series into an empty folder, or raises `Unavailable`.
Download = Callable[[Series, Path, Deadline], None]


def read_cohort(path: Path) -> Cohort:
    """Read a cohort file (TOML).

    Raises
    ------
    InvalidInput
        It cannot be read as one.
    """
    try:
        return Cohort.model_validate(tomllib.loads(path.read_text()))
    except (ValidationError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(
            Reason.ARGUMENT_INVALID, f"The cohort file cannot be used: {error}", subject="cohort"
        ) from None


def choose(cohort: Cohort, index: Index) -> list[Series]:
    """Choose the series of a cohort: the same ones for the same index.

    Raises
    ------
    InvalidInput
        The index has no series for a cancer type.
    """
    low, high = cohort.series_slices
    frame = index.sql_query(f"{QUERY} WHERE instanceCount BETWEEN {low} AND {high}")
    rows = frame.to_dict("records")
    chosen: list[Series] = []
    for name, kind in cohort.cancer_types.items():
        wanted = set(kind.modalities or cohort.modalities)
        found = [
            _series(row, name, kind)
            for row in rows
            if row["collection_id"] in kind.collections
            and row["Modality"] in wanted
            and row["license_short_name"] in cohort.licences
        ]
        if not found:
            raise InvalidInput(
                Reason.ARGUMENT_INVALID,
                f"The index has no series for {name!r} in {', '.join(kind.collections)}.",
                subject="cohort",
            )
        for modality in sorted(wanted):
            chosen += _first_of_each([one for one in found if one.modality == modality])[
                : cohort.patients
            ]
    return chosen


def _series(row: dict[str, Any], cancer_type: str, kind: CancerType) -> Series:
    return Series(
        uid=row["SeriesInstanceUID"],
        collection=row["collection_id"],
        modality=row["Modality"],
        cancer_type=cancer_type,
        organ=kind.organ,
        licence=row["license_short_name"],
        megabytes=float(row["series_size_MB"]),
        source=f"s3://{row['aws_bucket']}/{row['crdc_series_uuid']}/*",
        group=_digest(row["collection_id"], row["PatientID"])[:16],
    )


def _first_of_each(series: Sequence[Series]) -> list[Series]:
    """Return one series of each patient, in an order that nobody chose."""
    by_group: dict[str, Series] = {}
    for one in sorted(series, key=lambda one: _digest("order", one.uid)):
        by_group.setdefault(one.group, one)
    return list(by_group.values())


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def write_series(series: Sequence[Series], out: Path) -> Path:
    """Write the list of chosen series."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / SERIES).open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["series", "collection", "modality", "class", "cancer_type", "licence",
                       "megabytes", "split", "group"])  # fmt: skip
        for one in series:
            rows.writerow([one.uid, one.collection, one.modality, one.class_name, one.cancer_type,
                           one.licence, one.megabytes, one.split, one.group])  # fmt: skip
    return out / SERIES


def patients(series: Sequence[Series]) -> dict[str, Counter[str]]:
    """Count the patients of each class in each split."""
    counts: dict[str, Counter[str]] = {}
    for name, split, _ in dict.fromkeys((one.class_name, one.split, one.group) for one in series):
        counts.setdefault(name, Counter())[split] += 1
    return counts


def download_with(program: str, series: Series, folder: Path, deadline: Deadline) -> None:
    """Fetch the files of a series with s5cmd.

    ``idc_index`` would start the same program, but only logs that it failed, and waits for ever
    for a server that says nothing more.

    Raises
    ------
    Unavailable
        SOURCE_UNREADABLE: not all of them came in time.
    """
    command = [program, "--no-sign-request", "--log", "error", "--retry-count", str(RETRIES),
               "--endpoint-url", ENDPOINT, "cp", series.source, "."]  # fmt: skip
    try:
        # In the folder, so that what the program says names no path of this machine.
        answer = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=deadline.remaining("a series was fetched"),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _not_fetched(series, f"it takes longer than {error.timeout:.0f} s") from None
    if answer.returncode:
        last = (answer.stderr.splitlines() or ["s5cmd did not say why"])[-1]
        raise _not_fetched(series, last.removeprefix("ERROR "))


def _not_fetched(series: Series, why: str) -> Unavailable:
    return Unavailable(
        Reason.SOURCE_UNREADABLE, f"The series {series.uid} cannot be fetched: {why}."
    )


def fetch(
    series: Sequence[Series],
    cohort: Cohort,
    download: Download,
    out: Path,
    report: Callable[[str], None] = lambda _: None,
) -> list[Series]:
    """Fetch each series, keep its best slices, and write the manifest of what was kept.

    A series whose slices are there is not fetched again, so an interrupted call goes on. One that
    does not come is left out of the manifest, and tried again by the next call.

    Returns
    -------
    list of Series
        Those that did not come.

    Raises
    ------
    Unavailable
        SOURCE_UNREADABLE: `IN_A_ROW` series one after another did not come.
    """
    rows: list[dict[str, object]] = []
    missing: list[Series] = []
    in_a_row = 0
    for one in series:
        folder = out / one.class_name / _digest("series", one.uid)[:16]
        try:
            if not folder.exists():
                _bring(one, cohort, download, folder)
        except Unavailable as error:
            report(f"{one.class_name}: {error}")
            missing.append(one)
            in_a_row += 1
            if in_a_row == IN_A_ROW:
                raise Unavailable(
                    Reason.SOURCE_UNREADABLE,
                    f"{in_a_row} series one after another did not come. {error.message}",
                    remedy="Look at the network, and at the room on the disk; then run the same "
                    "command again: it goes on where it was.",
                    subject="out",
                ) from None
            continue
        in_a_row = 0
        kept = list(_described(one, folder, out))
        rows += kept
        report(f"{one.class_name}: kept {len(kept)} slices of {one.uid}")
    with (out / MANIFEST).open("w", newline="") as stream:
        table = csv.DictWriter(stream, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    return missing


def _bring(series: Series, cohort: Cohort, download: Download, folder: Path) -> None:
    """Make the folder of a series, which says that all of the series was looked at."""
    draft = folder.with_suffix(".part")
    # What an interrupted call left is not the whole series.
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    download(series, draft, Deadline.after(GRACE_S + series.megabytes / SLOWEST))
    if not any(draft.rglob("*.dcm")):
        raise _not_fetched(series, "no file came")
    _keep(draft, cohort.slices)
    draft.replace(folder)


def _keep(folder: Path, slices: int) -> None:
    """Keep the slices that show most, spread over the better half of a series."""
    shows = {path: _contrast(path) for path in sorted(folder.rglob("*.dcm"))}
    better = sorted(shows, key=lambda path: (-shows[path], path.name))[: max(1, len(shows) // 2)]
    places = np.linspace(0, len(better) - 1, min(slices, len(better))).round().astype(int)
    kept = {better[place] for place in places if shows[better[place]] > 0}
    for path in shows:
        if path not in kept:
            path.unlink()


def _glance(path: Path) -> NDArray[np.uint8] | None:
    try:
        return decode(path.read_bytes(), side=GLANCE, frame=REPRESENTATIVE).pixels
    except InvalidInput:
        return None


def _contrast(path: Path) -> float:
    """Return the deviation of a slice's grey levels; 0 where it cannot be decoded."""
    pixels = _glance(path)
    return 0.0 if pixels is None else float(pixels.std())


def _described(series: Series, folder: Path, out: Path) -> Iterator[dict[str, object]]:
    for path in sorted(folder.rglob("*.dcm")):
        image = decode(path.read_bytes(), side=GLANCE, frame=REPRESENTATIVE)
        yield {
            "file": path.relative_to(out).as_posix(),
            "class": series.class_name,
            "modality": series.modality,
            "organ": series.organ,
            "finding": series.cancer_type,
            "cancer_type": series.cancer_type,
            "is_cancer": 1,
            "split": series.split,
            "patient_id": "",
            "group": series.group,
            "group_kind": "patient",
            "source_repo": series.collection,
            "source_path": series.uid,
            "width": image.metadata.columns,
            "height": image.metadata.rows,
            "pixel_sha256": image.content_sha256,
        }
