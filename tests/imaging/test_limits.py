"""Every limit is kept, named with its value, documented, and the operator's to set."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from pydicom.encaps import encapsulate

from dafh.errors import InvalidInput, Misconfigured, Reason
from dafh.imaging.codecs.jpeg import MOST_SCANS
from dafh.imaging.codecs.jpeg_2000 import MOST_TILES
from dafh.imaging.codecs.markers import MOST_SEGMENTS
from dafh.imaging.decode import decode
from dafh.imaging.elements import MOST_BYTES
from dafh.imaging.image import Image
from dafh.imaging.limits import DEFAULT_LIMITS, DEFAULT_POLICY, Limits, Policy
from dafh.imaging.raster import MOST_CHUNKS
from dafh.imaging.voi import MOST_VIEWS
from dafh.settings import DecodeSettings, load

from .encoders import PREFIX, encoded, picture, write_compressed
from .instances import reread, write_instance
from .test_refusals import nested, png

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "limits.md"

JPEG_LS = PREFIX + "4.80"
#: Kept by the decoder processes: tests/imaging/test_pool.py.
BY_PROCESS = {"seconds", "memory_bytes"}


def deflated() -> bytes:
    return write_instance(np.zeros((64, 64), np.uint16), syntax="1.2.840.10008.1.2.1.99")


def inflated_size() -> int:
    """Return how large the data set of `deflated` is."""
    data = deflated()
    start = 144 + int.from_bytes(data[140:144], "little")
    return len(zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start:]))


def elements(data: bytes) -> int:
    data_set = reread(data)
    return len(data_set) + len(data_set.file_meta)


#: Limit -> a file, what it has of it, the element that is named.
KEPT: dict[str, tuple[Callable[[], bytes], Callable[[], int], str]] = {
    "request_bytes": (write_instance, lambda: len(write_instance()), "request_bytes"),
    "inflated_bytes": (deflated, inflated_size, "(0002,0010)"),
    "frame_samples": (write_instance, lambda: 256, "(0028,0010)"),
    "instance_samples": (write_instance, lambda: 256, "(0028,0010)"),
    "frames": (
        lambda: write_instance(np.zeros((6, 2), np.uint16), NumberOfFrames=3, Rows=2),
        lambda: 3,
        "(0028,0008)",
    ),
    "nesting_depth": (lambda: nested(4, undefined=True), lambda: 4, "(0008,1140)"),
    "elements": (write_instance, lambda: elements(write_instance()), "(7FE0,0010)"),
}


def with_limit(name: str, value: float) -> Policy:
    limits = {field.name: getattr(DEFAULT_LIMITS, field.name) for field in fields(Limits)}
    return Policy(limits=Limits(**{**limits, name: value}))


def test_every_limit_is_tested() -> None:
    assert KEPT.keys() | BY_PROCESS == {field.name for field in fields(Limits)}


@pytest.mark.parametrize("name", KEPT)
def test_a_limit_is_inclusive_and_named_with_its_value(name: str) -> None:
    make, measure, subject = KEPT[name]
    data, value = make(), measure()
    assert isinstance(decode(data, side=8, policy=with_limit(name, value)), Image)
    with pytest.raises(InvalidInput) as caught:
        decode(data, side=8, policy=with_limit(name, value - 1))
    error = caught.value
    assert error.subject == subject
    assert f"limit {name}: {value} > {value - 1}" in error.message
    assert error.reason is (Reason.TOO_LARGE if name == "request_bytes" else Reason.LIMIT_EXCEEDED)
    if subject.startswith("("):
        assert subject in error.message


def test_meta_elements_elements_and_fragments_are_counted_as_one() -> None:
    """Each costs the same time; three times as many would cost three times as much."""
    values = picture(16, 16, 8)
    stream = encoded(values, JPEG_LS, 8)
    pixels = encapsulate([stream + b"\0" * (len(stream) % 2)], fragments_per_frame=3)
    data = write_compressed([values], JPEG_LS, 8, {}, pixels)
    # The offset table is a fragment too.
    most = elements(data) + 4
    assert isinstance(decode(data, side=8, policy=with_limit("elements", most)), Image)
    with pytest.raises(InvalidInput, match=rf"\(7FE0,0010\) .*elements: {most} > {most - 1}"):
        decode(data, side=8, policy=with_limit("elements", most - 1))


def test_research_pictures_keep_the_same_limits() -> None:
    data = png(16, 16)
    assert isinstance(decode(data, side=8, policy=with_limit("frame_samples", 256)), Image)
    for name in ("frame_samples", "instance_samples", "request_bytes"):
        with pytest.raises(InvalidInput, match=f"limit {name}: "):
            decode(data, side=8, policy=with_limit(name, min(255, len(data) - 1)))


def test_a_bomb_is_not_inflated_beyond_its_limit() -> None:
    data = write_instance(np.zeros((4096, 4096), np.uint16), syntax="1.2.840.10008.1.2.1.99")
    with pytest.raises(InvalidInput, match="inflated_bytes: 100001 > 100000"):
        decode(data, side=8, policy=with_limit("inflated_bytes", 100_000))


def table(kind: type[object]) -> dict[str, list[str]]:
    """Return the rows of the document that describe a class's fields."""
    rows = [
        [cell.strip() for cell in line.strip("| \n").split("|")]
        for line in DOCUMENT.read_text().splitlines()
        if line.startswith("| ")
    ]
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    return {row[0]: row for row in rows if row[0] in names}


def test_the_document_tells_every_limit_as_it_is() -> None:
    documented = table(Limits)
    assert documented.keys() == {field.name for field in fields(Limits)}
    for name, row in documented.items():
        assert float(row[1]) == getattr(DEFAULT_LIMITS, name)
        assert row[2] == f"`DAFH_LIMITS__{name.upper()}`"
        assert row[4] in set(Reason)


def test_the_document_tells_every_policy_as_it_is() -> None:
    documented = table(Policy)
    assert documented.keys() == {field.name for field in fields(Policy)} - {"limits"}
    for name, row in documented.items():
        assert row[1] == str(getattr(DEFAULT_POLICY, name)).lower()
        assert row[2] == f"`DAFH_{name.upper()}`"
        assert set(re.findall(r"[A-Z]{4,}_[A-Z_]+", row[3])) <= set(Reason)


@pytest.mark.parametrize(
    ("what", "most"),
    [
        ("bytes of an element that is no table", MOST_BYTES),
        ("VOI LUTs, and windows, of a frame", MOST_VIEWS),
        ("segments before the first scan of a JPEG", MOST_SEGMENTS),
        ("scans of a JPEG", MOST_SCANS),
        ("tiles of a JPEG 2000", MOST_TILES),
        ("chunks of a PNG", MOST_CHUNKS),
    ],
)
def test_the_document_tells_every_fixed_bound_as_it_is(what: str, most: int) -> None:
    assert f"| {what} | {most} |" in DOCUMENT.read_text()


def test_the_environment_sets_limits_and_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(DecodeSettings)
    assert settings.policy == DEFAULT_POLICY
    assert settings.decode_workers >= 1
    monkeypatch.setenv("DAFH_LIMITS__SECONDS", "2.5")
    monkeypatch.setenv("DAFH_LIMITS__FRAMES", "7")
    monkeypatch.setenv("DAFH_REFUSE_BURNED_IN", "true")
    monkeypatch.setenv("DAFH_ALLOW_EXECUTABLE_PREAMBLE", "1")
    monkeypatch.setenv("DAFH_DECODE_WORKERS", "3")
    settings = load(DecodeSettings)
    assert settings.decode_workers == 3
    assert settings.policy == Policy(
        limits=Limits(seconds=2.5, frames=7),
        refuse_burned_in=True,
        allow_executable_preamble=True,
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DAFH_LIMITS__SECONDS", "0"),
        ("DAFH_LIMITS__SECONDS", "inf"),
        ("DAFH_LIMITS__SECONDS", "nan"),
        ("DAFH_LIMITS__MEMORY_BYTES", "-1"),
        ("DAFH_LIMITS__FRAMES", "many"),
        ("DAFH_DECODE_WORKERS", "0"),
        ("DAFH_DECODE_WORKERS", "100000"),
    ],
)
def test_a_setting_that_makes_no_sense_stops_the_start(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(Misconfigured) as caught:
        load(DecodeSettings)
    assert caught.value.reason is Reason.SETTING_INVALID


def test_an_executable_preamble_passes_where_the_operator_says_so() -> None:
    data = write_instance()
    program = b"MZ" + data[2:]
    with pytest.raises(InvalidInput) as caught:
        decode(program, side=8)
    assert (caught.value.reason, caught.value.subject) == (
        Reason.EXECUTABLE_PREAMBLE,
        "preamble",
    )
    allowing = Policy(allow_executable_preamble=True)
    image = decode(program, side=8, policy=allowing)
    assert image.content_sha256 == decode(data, side=8).content_sha256
    with pytest.raises(InvalidInput) as caught:
        decode(b"MZ" + bytes(500), side=8, policy=allowing)
    assert caught.value.reason is Reason.NOT_AN_IMAGE


def test_burned_in_text_is_refused_where_the_operator_says_so() -> None:
    data = write_instance(BurnedInAnnotation="YES")
    assert any("(0028,0301)" in warning for warning in decode(data, side=8).warnings)
    with pytest.raises(InvalidInput) as caught:
        decode(data, side=8, policy=Policy(refuse_burned_in=True))
    assert (caught.value.reason, caught.value.subject) == (
        Reason.BURNED_IN_ANNOTATION,
        "(0028,0301)",
    )
    clean = write_instance(BurnedInAnnotation="NO")
    assert isinstance(decode(clean, side=8, policy=Policy(refuse_burned_in=True)), Image)
