"""Colour to luminance: palettes plain and segmented, RGB and YBR, and what is refused."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate

from dafh.errors import InvalidInput, Reason
from dafh.imaging.colour import rgb_to_grey, to_eight_bits
from dafh.imaging.decode import decode, render

from .encoders import PREFIX, encoded, write_compressed
from .instances import MakeInstance, write_instance

unhurried = settings(deadline=None)

JPEG_LS = PREFIX + "4.80"
COLOURS = ("Red", "Green", "Blue")
ALL_INDICES = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize("bits", [8, 9, 12, 16])
def test_white_is_white_whatever_it_is_made_of(bits: int) -> None:
    top = 2**bits - 1
    values = np.array([[0, top // 2, top]], np.uint16)
    assert to_eight_bits(values, bits).tolist() == [[0, 127, 255]]
    assert rgb_to_grey(np.stack([values] * 3, axis=-1), bits).tolist() == [[0, 127, 255]]


def palette(
    segments: list[int], count: int, bits: int = 16, *, first: int = 0, segmented: bool = True
) -> dict[str, Any]:
    """Return the elements of a palette with the same table for each colour."""
    data = np.array(segments, "<u2" if bits == 16 else np.uint8).tobytes()
    data += b"\0" * (len(data) % 2)
    prefix = "Segmented" if segmented else ""
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in COLOURS:
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [count % 2**16, first, bits]
        elements[f"{prefix}{colour}PaletteColorLookupTableData"] = data
    return elements


@st.composite
def segments(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    """Return segments, the entries they stand for, and the bits of one, made naively."""
    bits = draw(st.sampled_from([8, 16]))
    top = 2**bits - 1
    parts = draw(
        st.lists(
            st.one_of(
                st.tuples(st.just(0), st.lists(st.integers(0, top), min_size=1, max_size=9)),
                st.tuples(st.just(1), st.tuples(st.integers(1, 20), st.integers(0, top))),
                st.tuples(st.just(2), st.tuples(st.integers(0, 9), st.integers(1, 9))),
            ),
            max_size=9,
        )
    )
    units, entries = [0, 1, 7], [7]
    starts: list[tuple[int, int, Sequence[int]]] = [(0, 0, [7])]
    for kind, content in parts:
        if kind == 2:
            source, number = content
            copied = starts[source : source + number]
            # Only segments that follow each other without an indirect one between can be copied.
            ends = [place + size(one, what) for place, one, what in copied]
            while copied and any(
                end != place for end, (place, _, _) in zip(ends, copied[1:], strict=False)
            ):
                copied, ends = copied[:-1], ends[:-1]
            if not copied:
                continue
            offset = copied[0][0] * (bits // 8)
            units += [2, len(copied)]
            units += [offset >> bits * part & top for part in range(32 // bits)]
            for _, one, what in copied:
                entries += made(one, what, entries[-1])
        else:
            starts.append((len(units), kind, content))
            entries += made(kind, content, entries[-1])
            units += [kind, *([len(content), *content] if kind == 0 else content)]
    return units, entries, bits


def size(kind: int, content: Sequence[int]) -> int:
    return 2 + (len(content) if kind == 0 else 1)


def made(kind: int, content: Sequence[int], before: int) -> list[int]:
    """Return the entries of one segment (PS3.3 C.7.9.2.1, C.7.9.2.2)."""
    if kind == 0:
        return list(content)
    length, end = content
    return [round(before + (end - before) * (one + 1) / length) for one in range(length)]


@unhurried
@given(segments())
def test_segments_stand_for_their_entries(made_up: tuple[list[int], list[int], int]) -> None:
    units, entries, bits = made_up
    # The first index beyond 8 bits and those before the table take its ends.
    values = np.arange(len(entries) + 2, dtype=np.uint16)[None]
    grey, _ = render(write_instance(values, **palette(units, len(entries), bits, first=1)))
    table = np.array([entries[0], *entries, entries[-1]], np.float64)
    peak = 255 if max(entries) <= 255 else 65535
    assert np.abs(grey[0] - table * 255 / peak).max() <= 0.5 + 1e-6
    plain = write_instance(values, **palette(entries, len(entries), bits, first=1, segmented=False))
    assert np.array_equal(render(plain)[0], grey)


@pytest.mark.parametrize(
    ("units", "fault"),
    [
        ([], "promised"),
        ([0, 200, 1, 2, 3], "short"),
        ([0, 256], "promised"),
        ([1, 256, 9], "no line"),
        ([0, 1, 7, 1, 254, 9], "promised"),
        ([0, 1, 7, 1, 256, 9], "too long"),
        ([0, 1, 7, 1, 0, 9], "empty"),
        ([0, 1, 7, 3, 9, 9], "no known type"),
        ([0, 1, 7, 2, 9, 6, 0], "no other"),
        ([0, 1, 7, 2, 9, 60000, 9], "no other"),
        ([2, 255, 0, 0] * 60000, "no other"),
        ([0, 1, 7, *[2, 0, 0, 0] * 60000], "promised"),
    ],
)
def test_broken_segments_are_refused_at_once(units: list[int], fault: str) -> None:
    started = time.process_time()
    data = palette(units or [0], 256)
    with pytest.raises(InvalidInput) as caught:
        decode(write_instance(ALL_INDICES, **data), side=16)
    assert time.process_time() - started < 2
    assert (caught.value.reason, caught.value.subject) == (Reason.DICOM_MALFORMED, "(0028,1221)")
    assert fault in caught.value.message


def test_a_palette_does_not_take_a_window(make_instance: MakeInstance) -> None:
    elements = palette(list(range(256)), 256, 8, segmented=False)
    plain, _ = render(make_instance(ALL_INDICES, **elements))
    data = make_instance(ALL_INDICES, WindowCenter="9", WindowWidth="2", **elements)
    assert np.array_equal(render(data)[0], plain)
    assert np.array_equal(plain, ALL_INDICES)


def test_a_supplemental_palette_leaves_the_greys_alone(make_instance: MakeInstance) -> None:
    # PS3.3 C.7.6.19: a monochrome image with colours for some of its values.
    shown: dict[str, Any] = {"WindowCenter": "128", "WindowWidth": "256"}
    plain, _ = render(make_instance(ALL_INDICES, **shown))
    colours = palette([0] * 100, 100, first=100, segmented=False)
    colours["PhotometricInterpretation"] = "MONOCHROME2"
    data = make_instance(ALL_INDICES, PixelPresentation="COLOR", **colours, **shown)
    assert np.array_equal(render(data)[0], plain)


def rgb(values: np.ndarray, photometric: str = "RGB", **elements: Any) -> bytes:  # noqa: ANN401  # Of an instance.
    return write_instance(
        values,
        PhotometricInterpretation=photometric,
        SamplesPerPixel=3,
        PlanarConfiguration=0,
        **elements,
    )


@pytest.mark.parametrize(
    ("kind", "bits"), [(np.uint8, 8), (np.uint16, 12), (np.uint16, 16), (np.uint32, 32)]
)
def test_rgb_of_any_depth_becomes_its_luminance(kind: type, bits: int) -> None:
    chance = np.random.default_rng(1)
    values: np.ndarray = chance.integers(0, 2**bits, (9, 8, 3), dtype=np.uint64).astype(kind)
    grey, _ = render(rgb(values, BitsStored=bits, HighBit=bits - 1))
    expected = values @ np.array([0.299, 0.587, 0.114]) * 255 / (2**bits - 1)
    assert np.abs(grey - expected).max() <= 0.5 + 1e-6


def test_rgb_takes_no_window_and_white_stays_white() -> None:
    values = np.zeros((8, 8, 3), np.uint8)
    values[:4] = 255
    grey, _ = render(rgb(values, WindowCenter="9", WindowWidth="2"))
    assert (int(grey[0, 0]), int(grey[7, 7])) == (255, 0)


def test_colours_marked_as_signed_are_read_without_a_sign() -> None:
    chance = np.random.default_rng(2)
    values = chance.integers(0, 256, (8, 8, 3), np.uint8)
    plain, _ = render(rgb(values))
    signed = rgb(values, PixelRepresentation=1)
    assert np.array_equal(render(signed)[0], plain)
    assert any("(0028,0103)" in warning for warning in decode(signed, side=8).warnings)
    y, _ = render(rgb(values, "YBR_FULL", PixelRepresentation=1))
    assert np.array_equal(y, values[..., 0])
    deep = chance.integers(0, 2**12, (8, 8, 3), np.uint16)
    depth: dict[str, Any] = {"BitsStored": 12, "HighBit": 11}
    plain, _ = render(rgb(deep, **depth))
    assert np.array_equal(render(rgb(deep, PixelRepresentation=1, **depth))[0], plain)


def test_signed_colours_of_more_bits_than_the_stream_has_are_read() -> None:
    values = np.random.default_rng(4).integers(0, 2**16, (8, 8, 3), np.uint16)
    described = {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PixelRepresentation": 1}
    pixels = encapsulate([encoded(values, JPEG_LS, 16)])
    described |= {"BitsAllocated": 32}
    data = write_compressed([values], JPEG_LS, 24, described, pixels)
    # White has 24 bits by the data set's word.
    expected = rgb_to_grey(values, 24)
    assert np.array_equal(render(data)[0], expected)


@pytest.mark.parametrize("frames", [1, 3])
def test_chroma_that_is_whole_against_the_label_is_not_taken_for_luma(frames: int) -> None:
    """Some writers decompress JPEG and leave YBR_FULL_422 where YBR_FULL has become true."""
    values = np.random.default_rng(3).integers(0, 256, (frames, 5, 7, 3), np.uint8)
    data = rgb(
        values[0], "YBR_FULL_422", NumberOfFrames=frames, PixelData=values.tobytes() + bytes(1)
    )
    assert np.array_equal(render(data, frame=frames)[0], values[-1, ..., 0])
    assert any("(0028,0004)" in warning for warning in decode(data, side=8).warnings)


@pytest.mark.parametrize("photometric", ["YBR_PARTIAL_420", "YBR_PARTIAL_422"])
def test_partial_range_luma_is_stretched(photometric: str) -> None:
    # PS3.3 C.7.6.3.1.2: black is 16, white is 235.
    luma = np.array([[0, 16, 125, 126, 235, 255]], np.uint8)
    if photometric == "YBR_PARTIAL_422":
        flat = np.full((1, 6, 2), 128, np.uint8)
        flat[..., 0] = luma
        pairs = flat[..., 0].reshape(-1, 2)
        cells = np.concatenate([pairs, np.full_like(pairs, 128)], axis=1)
        data = rgb(np.zeros((1, 6, 3), np.uint8), photometric, PixelData=cells.tobytes())
    else:
        values = np.full((1, 6, 3), 128, np.uint8)
        values[..., 0] = luma
        data = rgb(values, photometric)
    assert render(data)[0].tolist() == [[0, 0, 127, 128, 255, 255]]


@pytest.mark.parametrize("photometric", ["HSV", "ARGB", "CMYK", "YBR_ICT", "YBR_RCT", "XYB"])
def test_retired_and_misplaced_colour_models_are_refused(photometric: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode(rgb(np.zeros((8, 8, 3), np.uint8), photometric), side=8)
    assert caught.value.reason is Reason.PHOTOMETRIC_UNSUPPORTED
    assert caught.value.subject == "(0028,0004)"


@pytest.mark.parametrize("photometric", ["PALETTE COLOR", "RGB"])
def test_floating_point_colours_are_refused(photometric: str) -> None:
    samples = 1 if photometric == "PALETTE COLOR" else 3
    values = np.full((8, 8, samples), np.nan, np.float32)
    elements = palette(list(range(256)), 256, 8, segmented=False)
    elements |= {"PhotometricInterpretation": photometric, "SamplesPerPixel": samples}
    data = write_instance(
        values, without=("PixelData",), FloatPixelData=values.tobytes(), **elements
    )
    with pytest.raises(InvalidInput) as caught:
        decode(data, side=8)
    assert caught.value.reason is Reason.PHOTOMETRIC_UNSUPPORTED
