"""Nothing of the patient leaves: unique names planted everywhere are found nowhere."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import pack

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from dafh.deadline import Deadline
from dafh.errors import DafhError, InvalidInput, Reason
from dafh.imaging.decode import decode, decode_all, render
from dafh.imaging.elements import IMPLICIT_VR, Tag
from dafh.imaging.image import PatientKeyer
from dafh.imaging.inspect import inspect
from dafh.imaging.metadata import ALLOWED
from dafh.imaging.phantom import Phantom
from dafh.imaging.phantom.storage import ENCODERS, Stored
from dafh.imaging.pool import DecoderPool

from .canaries import (
    READ,
    STRUCTURE,
    Canaries,
    commented,
    commented_2000,
    element,
    encapsulated,
    jpeg,
    planted,
    png,
    said,
    sequence,
)

KEYER = PatientKeyer(b"k" * 32, "default")
RAMP = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
#: Places at which a file of names is cut.
CUTS = 60
SIZE = {tag: element(tag, "US", pack("<H", 64)) for tag in (Tag.ROWS, Tag.COLUMNS)}


@pytest.fixture(autouse=True)
def _silent(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """See to it that nothing is logged or printed either, by this process or its workers."""
    caplog.set_level(logging.DEBUG)
    yield
    assert not Canaries.sings(caplog.text)
    assert not Canaries.sings("".join(capfd.readouterr()))


@pytest.fixture
def pool() -> Iterator[DecoderPool]:
    """A pool whose workers write to the standard error that is looked at."""
    with DecoderPool(workers=1, keyer=KEYER) as opened:
        yield opened


def answer(call: Callable[..., object], *arguments: object, **options: object) -> object:
    """Return what a call gives, or the reason that it raises; neither may sing."""
    try:
        result = call(*arguments, **options)
    except DafhError as error:
        result, heard = error.reason, said(error)
    else:
        heard = f"{result!r} {result}"
    assert not Canaries.sings(heard)
    return result


def image_of(data: bytes) -> object:
    return answer(decode, data, side=8, keyer=KEYER)


def soon() -> Deadline:
    return Deadline.after(60)


def test_canaries_in_every_text_element_stay_inside(pool: DecoderPool) -> None:
    canaries = Canaries()
    data = planted(canaries)
    assert canaries.count > 5000
    image = decode(data, side=8, keyer=KEYER)
    assert image.metadata.patient_key
    assert image.warnings
    assert not Canaries.sings(f"{image!r} {image.metadata} {image.applied} {image.warnings}")
    for result in (
        answer(render, data),
        answer(lambda: [*decode_all(data, side=8)]),
        answer(pool.decode, data, side=8, deadline=soon()),
        answer(lambda: [*pool.decode_all(data, side=8, deadline=soon())]),
    ):
        assert not isinstance(result, Reason)


def test_canaries_in_a_file_that_ends_early_stay_inside() -> None:
    data = planted(Canaries())
    lengths = np.random.default_rng(5).integers(200, len(data), CUTS)
    reasons = {image_of(data[:length]) for length in lengths}
    assert Reason.DICOM_MALFORMED in reasons


@pytest.mark.parametrize("tag", READ, ids=lambda tag: f"{tag:08X}")
def test_a_canary_in_any_element_that_is_read_is_not_quoted(tag: Tag) -> None:
    """Whatever it is taken for: text, bytes of a number, a broken sequence, something unknown."""
    canaries = Canaries()
    for vr in {IMPLICIT_VR[tag], "LO", "UT", "UN", "SQ"}:
        changed = {tag: element(tag, vr, canaries.next())}
        image_of(planted(canaries, changed, only_read=True))
    if IMPLICIT_VR[tag] == "SQ":
        # An item of names without the tables and numbers that belong into it.
        inner = element(0x00100010, "PN", canaries.next())
        inner += element(0x00281050, "DS", canaries.next())
        image_of(planted(canaries, {tag: sequence(tag, inner)}, only_read=True))


@pytest.mark.parametrize("tag", [tag for tag in STRUCTURE if tag != Tag.SPECIFIC_CHARACTER_SET])
def test_a_canary_where_structure_should_be_is_refused(tag: Tag) -> None:
    canaries = Canaries()
    data = planted(canaries, {tag: element(tag, IMPLICIT_VR[tag], canaries.next())})
    assert isinstance(image_of(data), Reason)


def test_a_canary_for_transfer_syntax_is_not_quoted() -> None:
    canaries = Canaries()
    data = planted(canaries, syntax=canaries.next())
    # Native pixels under any label could be read as they show; fragments cannot.
    image_of(data)
    data = planted(canaries, syntax=canaries.next(), pixels=encapsulated(canaries.next()))
    assert image_of(data) is Reason.TRANSFER_SYNTAX_UNSUPPORTED


@pytest.mark.parametrize(
    "character_set", [b"ISO_IR 100", b"ISO_IR 13", b"ISO 2022 IR 87", b"GB18030", b"CNRY^000000"]
)
def test_no_character_set_lets_a_canary_out(character_set: bytes) -> None:
    tag = Tag.SPECIFIC_CHARACTER_SET
    data = planted(Canaries(), {tag: element(tag, "CS", character_set)})
    image_of(data)


def streams(canaries: Canaries) -> dict[str, bytes]:
    """Return transfer syntax -> stream with names beside the picture."""
    values = {"1.2.840.10008.1.2.4.80": commented, "1.2.840.10008.1.2.4.90": commented_2000}
    made = {"1.2.840.10008.1.2.4.50": jpeg(canaries, RAMP)}
    for syntax, comment in values.items():
        whole = ENCODERS[syntax](Stored(RAMP, 8, "MONOCHROME2", {}))
        # What the phantoms' encoder wraps is one fragment behind an empty table.
        made[syntax] = comment(canaries, whole[20:])
    return made


@pytest.mark.parametrize("syntax", list(streams(Canaries())))
def test_names_in_a_compressed_stream_stay_inside(syntax: str, pool: DecoderPool) -> None:
    canaries = Canaries()
    stream = streams(canaries)[syntax]
    assert b"CNRY" in stream
    label = syntax.encode()
    image = image_of(planted(canaries, SIZE, label, pixels=encapsulated(stream)))
    assert not isinstance(image, Reason)
    for length in range(10, len(stream), 97):
        pixels = encapsulated(stream[:length])
        cut = planted(canaries, SIZE, label, pixels=pixels, only_read=True)
        assert isinstance(image_of(cut), Reason)
    answer(pool.decode, cut, side=8, deadline=soon())


@pytest.mark.parametrize("make", [png, jpeg])
def test_text_in_png_and_jpeg_stays_inside(
    make: Callable[[Canaries], bytes], pool: DecoderPool
) -> None:
    data = make(Canaries())
    assert b"CNRY" in data
    assert not isinstance(image_of(data), Reason)
    assert not isinstance(answer(pool.decode, data, side=8, deadline=soon()), Reason)
    for length in range(10, len(data), 61):
        image_of(data[:length])


def test_inspect_repeats_the_callers_words_and_no_others(tmp_path: Path) -> None:
    canaries = Canaries()
    folder, out = tmp_path / canaries.next().decode(), tmp_path / "out"
    folder.mkdir()
    contents = {
        "whole": planted(canaries),
        "cut": planted(canaries)[:9999],
        "text": canaries.next() * 9,
        "png": png(canaries),
        "jpeg": jpeg(canaries),
        "syntax": planted(canaries, syntax=canaries.next(), pixels=encapsulated(b"")),
    }
    for kind, data in contents.items():
        (folder / f"{canaries.next().decode()} {kind}").write_bytes(data)
    app = typer.Typer()
    app.command()(inspect)
    lines = CliRunner().invoke(app, [str(folder), "--json", "--png", str(out)]).stdout
    verdicts = [json.loads(line) for line in lines.splitlines()]
    assert {verdict["ok"] for verdict in verdicts} == {True, False}
    for verdict in verdicts:
        assert Canaries.sings(verdict.pop("file"))
        assert not Canaries.sings(json.dumps(verdict))
    pictures = [*out.iterdir()]
    assert pictures
    for picture in pictures:
        assert not Canaries.sings(picture.name)
        assert b"CNRY" not in picture.read_bytes()


def test_a_canary_is_found_in_each_place_that_is_looked_at(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """The looking itself: each sink shows a name that is put there on purpose."""
    name = Canaries().next().decode()
    assert Canaries.sings(said(InvalidInput(Reason.NO_PIXELS, "", remedy=name)))
    assert Canaries.sings(said(ValueError(name)))
    assert Canaries.sings(name.encode().hex())
    logging.getLogger("dafh").warning(name)
    assert Canaries.sings(caplog.text)
    caplog.clear()
    print(name)  # noqa: T201 - what is looked for
    assert Canaries.sings("".join(capfd.readouterr()))


@pytest.mark.parametrize("field", ALLOWED)
def test_a_listed_element_passes_only_what_it_may_hold(field: str) -> None:
    assert not ALLOWED[field].accept("DOE^JANE")
    assert not ALLOWED[field].accept("")
    assert not ALLOWED[field].accept("JANE")
    good = {"modality": "CT", "body_part": "CHEST", "laterality": "L", "view": "MLO"}
    good |= {"manufacturer_model": "SOMATOM Force", "study_year": "2024", "patient_key": "0f" * 32}
    good |= dict.fromkeys(("rows", "columns", "frames"), "512")
    assert ALLOWED[field].accept(good.get(field, "1.2.840.10008.1.2"))


def test_the_patient_key_follows_key_tenant_issuer_and_id(sample: list[Phantom]) -> None:
    keys: dict[int, set[str]] = {}
    for phantom in sample:
        image = decode(phantom.data, side=8, keyer=KEYER)
        keys.setdefault(phantom.patient, set()).add(image.metadata.patient_key)
        assert "PHANTOM" not in repr(image)
    assert all(len(one) == 1 for one in keys.values())
    assert len(set.union(*keys.values())) == len(keys) > 5
    other = PatientKeyer(b"o" * 32, "default")
    elsewhere = PatientKeyer(b"k" * 32, "elsewhere")
    own = {
        decode(sample[0].data, side=8, keyer=keyer).metadata.patient_key
        for keyer in (KEYER, other, elsewhere, None)
    }
    assert len(own) == 4
    assert "" in own
