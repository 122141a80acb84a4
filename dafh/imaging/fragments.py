"""Finds the compressed stream of one frame in encapsulated pixel data (PS3.5 A.4)."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from struct import unpack_from

import numpy as np

from dafh.imaging.elements import DataSet, Tag
from dafh.imaging.limits import Limits
from dafh.imaging.reader import ITEM, SEQUENCE_END, Instance, PixelElement
from dafh.imaging.refusal import limit_exceeded, undecodable

#: End of a JPEG, JPEG-LS or JPEG 2000 stream; one byte of padding may follow.
END_OF_STREAM = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class _Fragment:
    #: Position of the item behind the first byte of the first fragment's item (what offsets count).
    offset: int
    value: memoryview


def frame_fragments(
    pixels: PixelElement, instance: Instance, frames: int, *, one_each: bool, limits: Limits
) -> list[list[memoryview]]:
    """Return the fragments of every frame; joined, those of one frame are its compressed stream.

    Parameters
    ----------
    pixels
        The pixel data element, a sequence of fragments.
    instance
        Where they are from.
    frames
        Number of frames.
    one_each
        The transfer syntax keeps each frame in one fragment (RLE: PS3.5 A.4.2).
    limits
        `elements` bounds the fragments and all that was read before them.

    Raises
    ------
    InvalidInput
        PIXELS_UNDECODABLE: a fragment is cut short, or frames cannot be told apart;
        LIMIT_EXCEEDED.
    """
    table, fragments = _fragments(pixels.value, instance.elements, limits)
    if not fragments:
        raise undecodable("there is no fragment")
    values = [fragment.value for fragment in fragments]
    if frames == 1:
        return [values]
    if len(values) == frames:
        return [[value] for value in values]
    starts = _starts(instance.data_set, table, frames)
    if starts is None and not one_each:
        starts = _stream_starts(fragments)
    if starts is None or len(starts) != frames:
        found = len(fragments) if starts is None else len(starts)
        raise undecodable(f"{frames} frames are promised, {found} can be told apart")
    offsets = [fragment.offset for fragment in fragments]
    places = [*(bisect_left(offsets, start) for start in starts), len(offsets)]
    for number, (first, last) in enumerate(pairwise(places), start=1):
        if first == last:
            raise undecodable(f"the offset of frame {number} leads nowhere")
    return [values[first:last] for first, last in pairwise(places)]


def _fragments(value: memoryview, elements: int, limits: Limits) -> tuple[bytes, list[_Fragment]]:
    """Return the Basic Offset Table and all fragments."""
    items: list[_Fragment] = []
    position = origin = 0
    while len(value) - position >= 8:
        group, element, length = unpack_from("<HHI", value, position)
        tag = group << 16 | element
        if tag == SEQUENCE_END:
            break
        if tag != ITEM:
            raise undecodable("something that is no fragment lies between the fragments")
        if length > len(value) - position - 8:
            raise undecodable(
                f"a fragment claims {length} bytes where {len(value) - position - 8} are left"
            )
        items.append(_Fragment(position - origin, value[position + 8 : position + 8 + length]))
        count = elements + len(items)
        if count > limits.elements:
            raise limit_exceeded(
                Tag.PIXEL_DATA, "The number of fragments", "elements", limits.elements, count
            )
        position += 8 + length
        if len(items) == 1:
            origin = position
    else:
        # Some writers forget the delimiter; one that is there in part was cut off. Whether the last
        # stream is whole, the codec finds out.
        if position < len(value):
            raise undecodable("the file ends before the last fragment")
    if not items:
        return b"", []
    return bytes(items[0].value), items[1:]


def _starts(data_set: DataSet, table: bytes, frames: int) -> list[int] | None:
    """Return where frames start by the Extended (PS3.3 C.7.6.3.1.8) or Basic Offset Table."""
    for raw, kind in ((data_set.raw(Tag.EXTENDED_OFFSET_TABLE), "<u8"), (table, "<u4")):
        if len(raw) == frames * int(kind[-1]):
            starts = [int(start) for start in np.frombuffer(raw, kind)]
            if all(before < after for before, after in pairwise(starts)):
                return starts
    return None


def _stream_starts(fragments: list[_Fragment]) -> list[int]:
    """Return where frames start when nothing but the streams' own ends tells."""
    starts = [fragments[0].offset]
    for before, after in pairwise(fragments):
        if END_OF_STREAM in bytes(before.value[-10:]):
            starts.append(after.offset)
    return starts
