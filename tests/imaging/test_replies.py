"""A worker's word is checked before it is believed: it has read a stranger's bytes."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dafh.errors import InvalidInput, Reason
from dafh.imaging.image import Image, Metadata, PatientKey
from dafh.imaging.metadata import ALLOWED
from dafh.imaging.nursery import Died, Nonsense, Nursery, Worker
from dafh.imaging.replies import MOST_TEXT, read_defect, read_image
from dafh.imaging.worker import IMAGE, REFUSAL, REPLY, Request, _facts, _place

SIDE = 4
PIXELS = np.arange(SIDE * SIDE, dtype=np.uint8).reshape(1, SIDE, SIDE)
METADATA = Metadata(
    "1.2.3",
    "1.2.4",
    "1.2.5",
    modality="CT",
    rows=5,
    columns=6,
    frames=3,
    transfer_syntax="1.2.840.10008.1.2.1",
    patient_key=PatientKey("ab" * 32),
)
WHOLE = Image(PIXELS, 2, "cd" * 32, METADATA, ("rescale 1 -1024",), ("the image is uniform",))
FACTS = _facts(WHOLE)
WORDS = {"reason": "NO_PIXELS", "message": "No.", "remedy": "Do.", "subject": "(7FE0,0010)"}


def reply(kind: bytes, told: object, pixels: bytes = b"", *, old: bool = False) -> bytes:
    text = told if isinstance(told, bytes) else json.dumps(told).encode()
    return REPLY.pack(kind, old, len(text), len(pixels)) + text + pixels


def image_reply(changes: dict[str, Any] | None = None, **metadata: object) -> bytes:
    facts = {**FACTS, **(changes or {})}
    facts["metadata"] = {**cast("dict[str, object]", facts["metadata"]), **metadata}
    return reply(IMAGE, facts, PIXELS.tobytes())


def hear(said: bytes, request: Request | None = None) -> tuple[Image, Worker]:
    """Return the image that a worker gets across which says these bytes, and then no more."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker = Worker(cast("Nursery", None), 0, ours)
        worker.ask(request or Request(SIDE, frame=2), b"", time.monotonic() + 5)
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        return worker.image(time.monotonic() + 5), worker


def test_an_honest_image_gets_across_whole() -> None:
    image, worker = hear(image_reply())
    assert np.array_equal(image.pixels, PIXELS)
    assert replace(image, pixels=PIXELS) == replace(WHOLE, pixels=PIXELS)
    assert type(image.metadata) is Metadata
    assert (worker.busy, worker.old, worker.answered) == (False, False, 1)
    assert hear(reply(IMAGE, FACTS, PIXELS.tobytes(), old=True))[1].old


def test_an_honest_refusal_gets_across_whole() -> None:
    with pytest.raises(InvalidInput) as caught:
        hear(reply(REFUSAL, WORDS))
    error = caught.value
    assert (error.reason, error.message, error.remedy, error.subject) == (
        Reason.NO_PIXELS,
        "No.",
        "Do.",
        "(7FE0,0010)",
    )


BAD: dict[str, Callable[[], bytes]] = {
    "an unknown kind": lambda: reply(b"?", "x"),
    "a defect": lambda: reply(b"d", "KeyError in somewhere:3"),
    "a defect with words": lambda: reply(b"d", "KeyError: 'DOE^JOHN'"),
    "too few pixels": lambda: reply(IMAGE, FACTS, bytes(SIDE * SIDE - 1)),
    "too many pixels": lambda: reply(IMAGE, FACTS, bytes(SIDE * SIDE + 1)),
    "more pixels than memory": lambda: REPLY.pack(IMAGE, False, 2, 2**63) + b"{}",
    "pixels with a refusal": lambda: reply(REFUSAL, WORDS, b"DOE^JOHN"),
    "too much text": lambda: reply(REFUSAL, b" " * (MOST_TEXT + 1)),
    "no JSON": lambda: reply(IMAGE, b"\x80\x04pickled", PIXELS.tobytes()),
    "a list": lambda: reply(IMAGE, [FACTS], PIXELS.tobytes()),
    "deep JSON": lambda: reply(IMAGE, b"[" * 60_000, PIXELS.tobytes()),
    "one field more": lambda: image_reply({"patient": "DOE^JOHN"}),
    "one field less": lambda: reply(REFUSAL, {**WORDS, "remedy": None}),
    "one element more": lambda: image_reply(patient_name="DOE^JOHN"),
    "a name as modality": lambda: image_reply(modality="DOE^JOHN"),
    "a name as body part": lambda: image_reply(body_part="DOE"),
    "a name as model": lambda: image_reply(manufacturer_model="DOE^JOHN"),
    "a name as UID": lambda: image_reply(study_instance_uid="1.2.DOE"),
    "a UID without end": lambda: image_reply(study_instance_uid="1." * 60 + "1"),
    "a name as pseudonym": lambda: image_reply(patient_key="DOE^JOHN"),
    "a number as UID": lambda: image_reply(sop_instance_uid=12),
    "a text as number": lambda: image_reply(rows="12"),
    "a truth as number": lambda: image_reply(rows=True),
    "a negative number": lambda: image_reply(rows=-1),
    "a huge number": lambda: image_reply(columns=2**40),
    "a short digest": lambda: image_reply({"content_sha256": "cd"}),
    "no digest": lambda: image_reply({"content_sha256": ""}),
    "another frame": lambda: image_reply({"frame": 3}),
    "a frame beyond the last": lambda: image_reply(frames=1),
    "lines in a warning": lambda: image_reply({"warnings": ["a\nb"]}),
    "a long note": lambda: image_reply({"applied": ["x" * 501]}),
    "many notes": lambda: image_reply({"applied": ["x"] * 101}),
    "a reason of ours": lambda: reply(REFUSAL, {**WORDS, "reason": "OVERLOADED"}),
    "no reason": lambda: reply(REFUSAL, {**WORDS, "reason": "DOE"}),
    "control characters": lambda: reply(REFUSAL, {**WORDS, "message": "\x1b[2J"}),
}


@pytest.mark.parametrize("name", BAD)
def test_a_reply_that_breaks_a_rule_is_not_believed(name: str) -> None:
    with pytest.raises(Nonsense) as caught:
        hear(BAD[name]())
    assert "DOE" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("cut", [0, 1, REPLY.size, REPLY.size + 5, -1])
def test_a_reply_that_breaks_off_is_a_death(cut: int) -> None:
    with pytest.raises(Died):
        hear(image_reply()[:cut])


def test_a_content_hash_comes_where_it_was_asked_for_and_nowhere_else() -> None:
    request = Request(SIDE, frame=2, content_hash=False)
    assert hear(image_reply({"content_sha256": ""}), request)[0].content_sha256 == ""
    with pytest.raises(Nonsense):
        hear(image_reply(), request)


def test_frames_come_in_order() -> None:
    with pytest.raises(Nonsense):
        hear(image_reply(), Request(SIDE, every=True))
    assert hear(image_reply({"frame": 1}), Request(SIDE, every=True))[1].busy


@given(said=st.binary(max_size=200))
def test_noise_is_an_end_or_nonsense(said: bytes) -> None:
    with pytest.raises((Died, Nonsense)):
        hear(said)


@given(at=st.integers(0, len(image_reply()) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_gives_an_image_or_nonsense(at: int, bit: int) -> None:
    said = bytearray(image_reply())
    said[at] ^= 1 << bit
    try:
        image, _ = hear(bytes(said))
    except (Died, Nonsense):
        return
    assert image.pixels.shape == (1, SIDE, SIDE)
    told = asdict(image.metadata)
    assert all(not value or ALLOWED[name].accept(str(value)) for name, value in told.items())


def test_what_is_said_unasked_is_not_taken_for_an_answer() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker = Worker(cast("Nursery", None), 0, ours)
        assert worker.at_rest()
        theirs.sendall(image_reply())
        assert not worker.at_rest()
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        assert not Worker(cast("Nursery", None), 0, ours).at_rest()


def test_a_stopped_worker_does_not_hold_up_the_sender() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker = Worker(cast("Nursery", None), 0, ours)
        with pytest.raises(TimeoutError):
            worker.ask(Request(SIDE), bytes(2**24), time.monotonic() + 0.2)
        assert worker.busy


def test_every_field_of_an_image_crosses() -> None:
    assert FACTS.keys() == {field.name for field in fields(Image)} - {"pixels"}
    assert ALLOWED.keys() == {field.name for field in fields(Metadata)}
    with pytest.raises(ValueError, match="frame"):
        read_image(b"{}", bytearray(SIDE * SIDE), SIDE)


def test_a_defect_is_told_by_its_place_alone() -> None:
    try:
        struct.unpack("<I", {"DOE^JOHN": b""}["DOE^JANE"])
    except KeyError as error:
        place = _place(error)
    assert read_defect(json.dumps(place).encode()) == place
    assert place.startswith("KeyError in ")
    assert "test_a_defect_is_told_by_its_place_alone" in place
    assert "DOE" not in place
