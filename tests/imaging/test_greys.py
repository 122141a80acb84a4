"""Monochrome images from stored values to greys: each step as if done pixel by pixel."""

from __future__ import annotations

from struct import pack
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from dafh.errors import InvalidInput, Reason
from dafh.imaging.decode import decode, render
from dafh.imaging.values import TABLE_SPAN, domain
from dafh.imaging.windows import VoiFunction, Window, percentiles

from .instances import MakeInstance, write_instance

unhurried = settings(deadline=None, max_examples=150)

CONTAINERS = [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32]


def item(**elements: object) -> Dataset:
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


@unhurried
@given(
    st.sampled_from([*CONTAINERS, np.uint64, np.int64]),
    st.integers(0, 2**32 - 1),
    st.integers(0, 17),
    st.integers(0, 1),
)
def test_a_domain_gives_every_pixel_its_own_value(
    kind: type, seed: int, wide: int, end: int
) -> None:
    chance = np.random.default_rng(seed)
    limits = np.iinfo(kind)
    span = min(2**wide, int(limits.max) - int(limits.min))
    # At either end of the container, where differences overflow.
    low = int(limits.min) if end else int(limits.max) - span
    pixels = chance.integers(low, low + span, (9, 7), dtype=kind, endpoint=True)
    found = domain(pixels)
    least = int(pixels.min())
    assert (found.first is None) is (int(pixels.max()) - least >= TABLE_SPAN)
    greys = chance.integers(0, 256, found.stored.size, np.uint8)
    image, counts = found.image(greys), found.counts()
    assert counts.sum() == pixels.size
    for order, pixel in enumerate(pixels.ravel().tolist()):
        place = order if found.first is None else pixel - least
        assert found.stored[place] == pytest.approx(float(pixel), rel=1e-15)
        assert image.flat[order] == greys[place]
        assert found.first is None or counts[place] == (pixels == pixel).sum()


@st.composite
def images(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, Any]]:
    """Return stored values of odd depths, and elements that say how to show them."""
    kind = np.dtype(draw(st.sampled_from(CONTAINERS)))
    allocated = 8 * kind.itemsize
    bits = draw(st.integers(2, allocated))
    high = draw(st.integers(bits - 1, allocated - 1))
    low_value = -(2 ** (bits - 1)) if kind.kind == "i" else 0
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = chance.integers(low_value, low_value + 2**bits, (6, 5)).astype(kind)
    return values, {
        "BitsStored": bits,
        "HighBit": high,
        "RescaleSlope": draw(st.sampled_from(["1", "0.5", "-2", "3.7"])),
        "RescaleIntercept": draw(st.sampled_from(["0", "-1024", "10.25"])),
        "WindowCenter": str(draw(st.integers(-500, 500))),
        "WindowWidth": str(draw(st.integers(1, 2000))),
        "VOILUTFunction": draw(st.sampled_from([one.value for one in VoiFunction])),
        "PhotometricInterpretation": draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"])),
        # The element has 16 bits.
        "padding": int(values[0, 0] % 100) if draw(st.booleans()) else None,
    }


@unhurried
@given(images(), st.integers(0, 2**32 - 1))
def test_every_pixel_takes_the_steps_of_the_standard(
    image: tuple[np.ndarray, dict[str, Any]], seed: int
) -> None:
    values, elements = image
    bits, high = int(str(elements["BitsStored"])), int(str(elements["HighBit"]))
    allocated, shift = 8 * values.itemsize, high + 1 - bits
    # PS3.5 8.1.1: what lies outside the stored bits is no part of the value; overlays did.
    unsigned = values.view(f"u{values.itemsize}")
    inside = (unsigned.astype(object) % 2**bits) * 2**shift
    junk = np.random.default_rng(seed).integers(0, 2**31, values.shape).astype(object)
    mask = (2**bits - 1) * 2**shift
    cells = inside + (junk % 2**allocated & ~mask)
    padding = elements.pop("padding")
    if padding is not None:
        elements["PixelPaddingValue"] = padding
    grey, _ = render(
        write_instance(values, PixelData=cells.astype(unsigned.dtype).tobytes(), **elements)
    )
    window = Window(
        float(str(elements["WindowCenter"])),
        float(str(elements["WindowWidth"])),
        VoiFunction(str(elements["VOILUTFunction"])),
    )
    slope = float(str(elements["RescaleSlope"]))
    expected = window.grey(values * slope + float(str(elements["RescaleIntercept"])))
    if elements["PhotometricInterpretation"] == "MONOCHROME1":
        expected = 255 - expected
    if padding is not None:
        expected = np.where(values == padding, 0, expected)
    assert np.array_equal(grey, np.rint(expected))


@unhurried
@given(st.integers(0, 2**32 - 1), st.integers(1, 5000), st.booleans())
def test_without_a_window_one_percent_is_clipped_at_either_end(
    seed: int, spread: int, signed: bool
) -> None:
    values = np.random.default_rng(seed).normal(0 if signed else 4 * spread, spread, (24, 24))
    stored = values.clip(-9000, 60000).astype(np.int16 if signed else np.uint16)
    grey, _ = render(write_instance(stored, Modality="MR"))
    low, high = np.percentile(stored, [1, 99], method="inverted_cdf")
    if low < high:
        expected = np.clip((stored - float(low)) / (high - float(low)) * 255, 0, 255)
        assert np.abs(grey - expected).max() <= 0.5 + 1e-6


@given(st.lists(st.integers(-100, 100), min_size=1, max_size=80), st.integers(0, 100))
def test_percentiles_are_those_of_numpy(values: list[int], percent: int) -> None:
    found, counts = np.unique(values, return_counts=True)
    expected = np.percentile(values, percent, method="inverted_cdf")
    assert percentiles(found.astype(np.float64), counts, (percent,)) == (expected,)


def test_a_range_of_padding_is_black_at_both_of_its_ends(make_instance: MakeInstance) -> None:
    values = np.arange(100, 164, dtype=np.int16).reshape(8, 8)
    shown: dict[str, Any] = {"WindowCenter": "50", "WindowWidth": "2"}
    for value, limit in ((110, 115), (115, 110)):
        grey, _ = render(
            make_instance(values, PixelPaddingValue=value, PixelPaddingRangeLimit=limit, **shown)
        )
        assert np.array_equal(grey == 0, (values >= 110) & (values <= 115))
    unused = decode(make_instance(values, PixelPaddingValue=7, **shown), side=8)
    assert "padding to black" not in unused.applied
    absent = values[values != 130].reshape(7, 9)
    between = decode(make_instance(absent, PixelPaddingValue=130, **shown), side=8)
    assert "padding to black" not in between.applied


def test_padding_has_no_part_in_the_default_window(make_instance: MakeInstance) -> None:
    values = np.random.default_rng(4).integers(1000, 3000, (16, 16)).astype(np.int16)
    plain, _ = render(make_instance(values, Modality="MR"))
    padded = np.concatenate([values, np.full_like(values, -2000)])
    grey, _ = render(make_instance(padded, Modality="MR", PixelPaddingValue=-2000))
    assert np.array_equal(grey[:16], plain)
    assert not grey[16:].any()


def test_padding_that_cannot_be_read_is_ignored_with_a_warning(make_instance: MakeInstance) -> None:
    data = make_instance(np.zeros((8, 8), np.int16), PixelPaddingValue=-2000)
    # A value of one byte is no number of two.
    start = data.index(b"\x28\x00\x20\x01SS\x02\x00\x30\xf8")
    broken = data[: start + 6] + b"\x01\x00\x30" + data[start + 10 :]
    assert "(0028,0120) ignored: DICOM_MALFORMED" in decode(broken, side=8).warnings


def floats(values: np.ndarray, **elements: Any) -> bytes:  # noqa: ANN401  # Of an instance.
    keyword = {4: "FloatPixelData", 8: "DoubleFloatPixelData"}[values.itemsize]
    return write_instance(values, without=("PixelData",), **{keyword: values.tobytes(), **elements})


@pytest.mark.parametrize(
    ("kind", "prefix"), [(np.float32, "FloatPixel"), (np.float64, "DoubleFloatPixel")]
)
def test_floating_point_pixels_are_shown_without_what_is_no_number(kind: type, prefix: str) -> None:
    values: np.ndarray = np.linspace(-1, 1, 64).reshape(8, 8).astype(kind)
    values[0, :4] = np.nan, np.inf, -np.inf, 1e30
    values[1, :2] = -5, -7
    padding = {f"{prefix}PaddingValue": -5.0, f"{prefix}PaddingRangeLimit": -8.0}
    shown: dict[str, Any] = {
        "WindowCenter": "0",
        "WindowWidth": "2",
        "VOILUTFunction": "LINEAR_EXACT",
    }
    grey, _ = render(floats(values, **padding, **shown))
    plain = np.clip(np.rint(np.clip((values.astype(float) / 2 + 0.5) * 255, 0, 255)), 0, 255)
    black = np.zeros((8, 8), bool)
    black[0, :3] = black[1, :2] = True
    assert not grey[black].any()
    assert np.array_equal(grey[~black], plain[~black])


def test_a_signalling_nan_is_black_and_says_nothing() -> None:
    # Any warning is an error in tests.
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    values.view(np.uint32)[2, 0] = 0x7FA00001
    assert render(floats(values))[0][2, 0] == 0


def test_inverting_twice_changes_nothing(make_instance: MakeInstance) -> None:
    shown: dict[str, Any] = {"WindowCenter": "100", "WindowWidth": "77"}
    plain, _ = render(make_instance(**shown))
    negative, _ = render(make_instance(PhotometricInterpretation="MONOCHROME1", **shown))
    # 255 - x of a rounded x.5 may fall to either side.
    assert np.abs((255 - negative.astype(int)) - plain).max() <= 1


@pytest.mark.parametrize(
    ("photometric", "shape", "warned"),
    [
        ("MONOCHROME1", "INVERSE", False),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", "INVERSE", True),
    ],
)
def test_a_presentation_lut_shape_never_inverts_again(
    photometric: str, shape: str, warned: bool, make_instance: MakeInstance
) -> None:
    elements = {"PhotometricInterpretation": photometric, "WindowCenter": "9", "WindowWidth": "9"}
    plain, _ = render(make_instance(**elements))
    data = make_instance(PresentationLUTShape=shape, **elements)
    assert np.array_equal(render(data)[0], plain)
    assert any("(2050,0020)" in warning for warning in decode(data, side=8).warnings) is warned


def test_overlays_and_presentation_tables_are_not_shown(make_instance: MakeInstance) -> None:
    plain, _ = render(make_instance())
    table = item(LUTDescriptor=[2, 0, 16], LUTData=b"\xff\xff\0\0")
    table["LUTData"].VR = "OW"
    data = make_instance(PresentationLUTSequence=[table])
    overlaid = bytearray(data)
    end = data.index(b"\xe0\x7f\x10\x00OW")
    rows = b"\x00\x60\x10\x00US\x02\x00\x10\x00" + b"\x00\x60\x11\x00US\x02\x00\x10\x00"
    overlay = b"\x00\x60\x00\x30OW\0\0\x20\0\0\0" + b"\xff" * 32
    overlaid[end:end] = rows + overlay
    assert np.array_equal(render(bytes(overlaid))[0], plain)


def test_a_broken_modality_table_is_refused(make_instance: MakeInstance) -> None:
    table = item(LUTDescriptor=[100, 0, 16], LUTData=b"\0\0")
    table["LUTData"].VR = "OW"
    with pytest.raises(InvalidInput) as caught:
        render(make_instance(ModalityLUTSequence=[table]))
    assert (caught.value.reason, caught.value.subject) == (Reason.DICOM_MALFORMED, "(0028,3006)")


def test_a_rescale_that_would_erase_the_image_is_ignored(make_instance: MakeInstance) -> None:
    shown: dict[str, Any] = {"WindowCenter": "128", "WindowWidth": "256"}
    plain, _ = render(make_instance(**shown))
    data = make_instance(RescaleSlope="0", RescaleIntercept="5", **shown)
    assert np.array_equal(render(data)[0], plain)
    assert any("(0028,1053)" in warning for warning in decode(data, side=8).warnings)


def test_each_frame_is_rescaled_by_its_own_functional_group(make_instance: MakeInstance) -> None:
    values = np.full((2, 8, 8), 100, np.uint8)

    def group(slope: str) -> Dataset:
        rescale = item(RescaleSlope=slope, RescaleIntercept="0", RescaleType="US")
        return item(PixelValueTransformationSequence=[rescale])

    data = make_instance(
        values[0],
        NumberOfFrames=2,
        PixelData=values.tobytes(),
        PerFrameFunctionalGroupsSequence=[group("1"), group("2")],
        SharedFunctionalGroupsSequence=[
            item(
                FrameVOILUTSequence=[
                    item(WindowCenter="128", WindowWidth="256", VOILUTFunction="LINEAR_EXACT")
                ],
                RealWorldValueMappingSequence=[
                    item(RealWorldValueSlope=9.0, RealWorldValueIntercept=0.0)
                ],
            )
        ],
    )
    levels = [int(render(data, frame=frame)[0][0, 0]) for frame in (1, 2)]
    assert levels == [100, 199]


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize(
    ("syntax", "order"), [(ExplicitVRLittleEndian, "<"), (ExplicitVRBigEndian, ">")]
)
def test_a_sequence_that_an_archive_stored_as_unknown_is_read(
    syntax: str, order: str, *, undefined: bool
) -> None:
    """PS3.5 6.2.2: it is in implicit VR little endian, whatever the data set round it is in."""
    table = pack("<HHI3H", 0x0028, 0x3002, 6, 4, 0, 8)
    table += pack("<HHI4H", 0x0028, 0x3006, 8, 255, 200, 100, 0)
    value = pack("<HHI", 0xFFFE, 0xE000, len(table)) + table
    head = pack(f"{order}HH2sHI", 0x0028, 0x3010, b"UN", 0, 2**32 - 1 if undefined else len(value))
    unknown = head + value + (pack("<HHI", 0xFFFE, 0xE0DD, 0) if undefined else b"")
    data = write_instance(np.zeros((2, 2), np.uint8), syntax=syntax)
    pixels = data.rindex(pack(f"{order}HH", 0x7FE0, 0x0010))
    data = data[:pixels] + unknown + data[pixels:]
    assert decode(data, side=8).applied[0] == "VOI LUT"
    assert render(data)[0].tolist() == [[255, 255], [255, 255]]
