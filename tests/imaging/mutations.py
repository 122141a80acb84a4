"""Damage as attackers, networks and old writers do it: to the structure of a file."""

from __future__ import annotations

import random
from collections.abc import Callable
from struct import pack

from dafh.imaging.elements import Tag

Mutation = Callable[[bytes, random.Random], bytes]

#: Elements by how they lie in a file, either byte order.
HEADERS = [pack(order, tag >> 16, tag & 0xFFFF) for tag in sorted(Tag) for order in ("<HH", ">HH")]
#: What stands between fragments, items and sequences.
DELIMITERS = [pack("<HH", 0xFFFE, element) for element in (0xE000, 0xE00D, 0xE0DD)]
#: Numbers that break arithmetic on lengths and sizes.
EDGES = (0, 1, 2, 7, 8, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFE)
#: What a text may hold where a number or a term is expected.
TEXTS = (
    b"", b" ", b"-1", b"0", b"1e400", b"nan", b"1\\2\\3", b"9" * 16, b"0.0000001",
    b"YBR_FULL", b"RGB", b"MONOCHROME1", b"PALETTE COLOR", b"SIGMOID", b"ISO 2022 IR 87",
    b"\xff\xfe",
)  # fmt: skip
VRS = (b"SQ", b"UN", b"OB", b"OW", b"US", b"SS", b"DS", b"IS", b"FL", b"FD", b"UT", b"??")
#: Markers of JPEG, JPEG-LS and JPEG 2000 streams (ITU-T T.81, T.87, T.800).
MARKERS = (0xD8, 0xC0, 0xC1, 0xC3, 0xC4, 0xDB, 0xDA, 0xDD, 0xD9, 0xF7, 0xF8, 0x4F, 0x51, 0x52, 0x5C,
           0x90, 0x93)  # fmt: skip


def mutate(data: bytes, seed: int) -> bytes:
    """Return a damaged copy; the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - damage, not secrets
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        data = chance.choice(MUTATIONS)(data, chance)
    return data


def _place(data: bytes, chance: random.Random) -> int:
    return chance.randrange(len(data) + 1)


def _found(data: bytes, needles: list[bytes], chance: random.Random) -> int:
    """Return where one of the needles lies, anywhere where none does."""
    for needle in chance.sample(needles, len(needles)):
        places: list[int] = []
        start = data.find(needle)
        while start >= 0 and len(places) < 16:
            places.append(start)
            start = data.find(needle, start + 1)
        if places:
            return chance.choice(places)
    return _place(data, chance)


def _number(chance: random.Random) -> bytes:
    value = chance.choice((*EDGES, chance.getrandbits(32), chance.getrandbits(8)))
    form = chance.choice(("<H", ">H", "<I", ">I"))
    return pack(form, value & (0xFFFF if form[1] == "H" else 0xFFFFFFFF))


def _overwrite(data: bytes, start: int, new: bytes) -> bytes:
    return data[:start] + new + data[start + len(new) :]


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: _place(data, chance)]


def _flip(data: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(chance.randint(1, 8) if damaged else 0):
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def _lie_about_length(data: bytes, chance: random.Random) -> bytes:
    start = _found(data, [*HEADERS, *DELIMITERS], chance) + chance.choice((4, 6, 8))
    return _overwrite(data, start, _number(chance))


def _change_value(data: bytes, chance: random.Random) -> bytes:
    start = _found(data, HEADERS, chance) + chance.choice((8, 8, 12))
    new = chance.choice(TEXTS) if chance.random() < 0.5 else _number(chance)
    return _overwrite(data, start, new)


def _change_vr(data: bytes, chance: random.Random) -> bytes:
    return _overwrite(data, _found(data, HEADERS, chance) + 4, chance.choice(VRS))


def _rename(data: bytes, chance: random.Random) -> bytes:
    return _overwrite(data, _found(data, HEADERS, chance), chance.choice([*HEADERS, *DELIMITERS]))


def _move(data: bytes, chance: random.Random) -> bytes:
    start = _found(data, HEADERS, chance)
    piece = data[start : start + chance.choice((8, 16, 64, 300))]
    to = _found(data, HEADERS, chance)
    return data[:to] + piece + data[to:]


def _remove(data: bytes, chance: random.Random) -> bytes:
    start = _found(data, HEADERS, chance) if chance.random() < 0.5 else _place(data, chance)
    return data[:start] + data[start + chance.choice((1, 2, 8, 10, 64)) :]


def _nest(data: bytes, chance: random.Random) -> bytes:
    sequence = pack("<HH", 0x0028, 0x3010) + b"SQ\0\0" + b"\xff" * 4
    item = DELIMITERS[0] + b"\xff" * 4
    start = _found(data, HEADERS, chance)
    return data[:start] + (sequence + item) * chance.choice((1, 3, 40)) + data[start:]


def _change_marker(data: bytes, chance: random.Random) -> bytes:
    old = [bytes((0xFF, marker)) for marker in MARKERS]
    start = _found(data, old, chance)
    if chance.random() < 0.3:
        return _overwrite(data, start, chance.choice(old))
    # Behind a marker come lengths, sizes, precision, component tables.
    return _overwrite(data, start + chance.randint(2, 24), _number(chance))


MUTATIONS: tuple[Mutation, ...] = (
    _cut,
    _flip,
    _lie_about_length,
    _change_value,
    _change_value,
    _change_vr,
    _rename,
    _move,
    _remove,
    _nest,
    _change_marker,
    _change_marker,
)
