"""Windows, rescaling, look-up tables and geometry: what must hold for all values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.dataset import Dataset

from dafh.imaging.decode import decode, render
from dafh.imaging.resize import crop_padding, letterbox
from dafh.imaging.windows import (
    BONE,
    BRAIN,
    SOFT_TISSUE,
    Unit,
    VoiFunction,
    Window,
    percentile_window,
    percentiles,
    preset_window,
)

from .instances import MakeInstance

#: A busy machine must not decide.
unhurried = settings(deadline=None)
numbers = st.floats(-1e6, 1e6)
widths = st.floats(1, 1e6)
images = arrays(
    np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(0, 255)
)


@unhurried
@given(numbers, widths, st.sampled_from(VoiFunction), st.lists(numbers, min_size=2, max_size=50))
def test_a_window_stays_in_range_and_never_swaps_two_values(
    center: float, width: float, function: VoiFunction, values: list[float]
) -> None:
    grey = Window(center, width, function).grey(np.sort(np.array(values)))
    assert grey.min() >= 0
    assert grey.max() <= 255
    assert np.all(np.diff(grey) >= 0)


def standard_grey(window: Window, value: float) -> float:
    """Return what the pseudo-code of PS3.3 C.11.2.1.2.1 and C.11.2.1.3 gives, from 0 to 255."""
    c, w, low, high = window.center, window.width, 0.0, 255.0
    match window.function:
        case VoiFunction.LINEAR:
            if value <= c - 0.5 - (w - 1) / 2:
                return low
            if value > c - 0.5 + (w - 1) / 2:
                return high
            return ((value - (c - 0.5)) / (w - 1) + 0.5) * (high - low) + low
        case VoiFunction.LINEAR_EXACT:
            if value <= c - w / 2:
                return low
            if value > c + w / 2:
                return high
            return ((value - c) / w + 0.5) * (high - low) + low
        case VoiFunction.SIGMOID:
            exponent = -4 * (value - c) / w
            return low if exponent > 500 else (high - low) / (1 + math.exp(exponent)) + low


@unhurried
@given(
    st.integers(-5000, 5000),
    st.one_of(st.just(1), st.integers(1, 5000), st.floats(1, 5000)),
    st.sampled_from(VoiFunction),
    st.lists(st.floats(-9000, 9000), min_size=1, max_size=20),
)
def test_windows_follow_the_formulas_of_the_standard(
    center: int, width: float, function: VoiFunction, values: list[float]
) -> None:
    window = Window(center, width, function)
    expected = [standard_grey(window, value) for value in values]
    assert window.grey(np.array(values)) == pytest.approx(expected, abs=1e-6)


@unhurried
@given(numbers, st.floats(2, 1e6))
def test_a_linear_window_is_black_below_and_white_above(center: float, width: float) -> None:
    # PS3.3 C.11.2.1.2.1: the borders of the window.
    low, high = center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    grey = Window(center, width).grey(np.array([low - 1, low, center - 0.5, high, high + 1]))
    assert grey == pytest.approx([0, 0, 127.5, 255, 255], abs=0.01)


@pytest.mark.parametrize(
    ("window", "valid"),
    [
        (Window(40, 400), True),
        (Window(40, 1), True),
        (Window(40, 0.5), False),
        (Window(40, 0.5, VoiFunction.LINEAR_EXACT), True),
        (Window(40, 0, VoiFunction.SIGMOID), False),
        (Window(float("nan"), 400), False),
        (Window(40, float("nan")), False),
        (Window(40, -400), False),
    ],
)
def test_windows_without_a_meaning_are_told_apart(window: Window, *, valid: bool) -> None:
    assert window.valid is valid


@unhurried
@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=200), st.floats(0, 100))
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(
    values: list[int], percent: float
) -> None:
    found, counts = np.unique(values, return_counts=True)
    (value,) = percentiles(found.astype(np.float64), counts.astype(np.int64), (percent,))
    assert value in values
    assert (np.array(values) <= value).mean() * 100 >= percent - 1e-6


@settings(unhurried, max_examples=40)
@given(st.floats(0.01, 100), st.floats(-1e4, 1e4), st.integers(0, 2**32 - 1))
def test_default_greys_do_not_depend_on_the_unit(slope: float, intercept: float, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 4096, 500).astype(np.float64)
    counts = np.ones(500, np.int64)
    plain = percentile_window("MR", Unit.OTHER, values, counts).grey(values)
    scaled = values * slope + intercept
    again = percentile_window("MR", Unit.OTHER, scaled, counts).grey(scaled)
    assert np.abs(plain - again).max() < 0.01


def test_ct_windows_follow_the_body_part() -> None:
    assert preset_window("CT", "HEAD", Unit.HOUNSFIELD) == BRAIN
    assert preset_window("CT", "ABDOMEN", Unit.HOUNSFIELD) == SOFT_TISSUE
    assert preset_window("CT", "", Unit.HOUNSFIELD) == SOFT_TISSUE
    assert preset_window("CT", "SPINE", Unit.HOUNSFIELD) == BONE
    assert preset_window("CT", "HEAD", Unit.OTHER) is None
    assert preset_window("MR", "HEAD", Unit.OTHER) is None


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"RescaleSlope": "1", "RescaleIntercept": "-1024"}, "default window 40/400"),
        ({"RescaleSlope": "1", "RescaleIntercept": "0"}, "default window 40/400"),
        ({"RescaleSlope": "1", "RescaleIntercept": "-1024", "RescaleType": "HU"}, "40/400"),
        ({"RescaleSlope": "1", "RescaleIntercept": "-1024", "RescaleType": "US"}, "LINEAR_EXACT"),
        ({}, "LINEAR_EXACT"),
        (
            {
                "RescaleSlope": "1",
                "RescaleIntercept": "-1024",
                "RescaleType": "HU",
                "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"],
            },
            "LINEAR_EXACT",
        ),
    ],
)
def test_a_ct_preset_needs_hounsfield_units(
    elements: dict[str, object], expected: str, make_instance: MakeInstance
) -> None:
    image = decode(make_instance(Modality="CT", **elements), side=16)
    assert expected in next(step for step in image.applied if "window" in step)


def test_an_image_of_almost_one_value_is_still_shown(make_instance: MakeInstance) -> None:
    values = np.zeros((64, 64), np.uint8)
    values[3, 5] = 1
    grey, _ = render(make_instance(values))
    assert grey[3, 5] == 255
    assert grey.sum() == 255
    uniform = decode(make_instance(np.full((64, 64), 7, np.uint8)), side=32)
    assert "the image is uniform" in uniform.warnings


@unhurried
@given(images, st.integers(1, 64), st.floats(1 / 16, 16))
def test_letterbox_gives_a_square_of_values_that_were_there(
    grey: np.ndarray, side: int, aspect: float
) -> None:
    square = letterbox(crop_padding(grey), side, aspect)
    assert square.shape == (side, side)
    assert square.dtype == np.uint8
    assert square.max() <= grey.max()


@unhurried
@given(st.integers(1, 255), st.integers(2, 40), st.integers(2, 40), st.integers(8, 64))
def test_letterbox_keeps_proportions(value: int, rows: int, columns: int, side: int) -> None:
    square = letterbox(np.full((rows, columns), value, np.uint8), side)
    high, wide = (square == value).any(1).sum(), (square == value).any(0).sum()
    assert max(high, wide) == side
    assert abs(high / wide - rows / columns) <= (1 + rows / columns) / min(high, wide)


def item(**elements: object) -> Dataset:
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def table(entries: np.ndarray, first: int, bits: int) -> Dataset:
    made = item(LUTDescriptor=[len(entries), first, bits], LUTData=entries.astype("<u2").tobytes())
    made["LUTData"].VR = "OW"
    return made


def test_modality_and_voi_tables_are_applied_in_turn(make_instance: MakeInstance) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    negative = table(np.arange(255, -1, -1), 0, 16)
    squared = table(np.arange(256) ** 2, 0, 16)
    data = make_instance(values, ModalityLUTSequence=[negative], VOILUTSequence=[squared])
    expected = np.rint((255 - values.astype(float)) ** 2 * 255 / 65535)
    assert np.array_equal(render(data)[0], expected)


@pytest.mark.parametrize("modality", ["XA", "RF", "DX"])
@pytest.mark.parametrize("relationship", ["LOG", "DISP", "LIN", ""])
def test_a_table_back_to_the_beam_is_not_for_display(
    modality: str, relationship: str, make_instance: MakeInstance
) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    data = make_instance(
        values,
        Modality=modality,
        PixelIntensityRelationship=relationship,
        ModalityLUTSequence=[table(np.arange(255, -1, -1), 0, 16)],
        WindowCenter=128,
        WindowWidth=256,
    )
    left_out = modality != "DX" and relationship in ("LOG", "DISP")
    assert np.array_equal(render(data)[0], values if left_out else 255 - values)


def test_values_outside_a_table_take_its_ends(make_instance: MakeInstance) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    data = make_instance(values, VOILUTSequence=[table(np.array([0, 255]), 100, 8)])
    assert np.array_equal(render(data)[0], np.where(values > 100, 255, 0))


def test_a_table_over_signed_values_begins_below_zero(make_instance: MakeInstance) -> None:
    values = np.arange(-128, 128, dtype=np.int16).reshape(16, 16)
    data = make_instance(values, VOILUTSequence=[table(np.array([0, 255]), -100, 8)])
    assert np.array_equal(render(data)[0], np.where(values > -100, 255, 0))


@pytest.mark.parametrize(
    ("unit", "expected"), [("HU", "default window 40/400"), ("US", "LINEAR_EXACT")]
)
def test_a_modality_table_says_what_its_values_count(
    unit: str, expected: str, make_instance: MakeInstance
) -> None:
    lut = table(np.arange(4096), 0, 16)
    lut.ModalityLUTType = unit
    image = decode(make_instance(Modality="CT", ModalityLUTSequence=[lut]), side=16)
    assert expected in next(step for step in image.applied if "window" in step)


def test_a_palette_becomes_the_luminance_of_its_colours(make_instance: MakeInstance) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    ramp = (np.arange(256) * 257).astype("<u2")
    palettes: dict[str, object] = {}
    for colour, entries in (("Red", ramp), ("Green", ramp[::-1]), ("Blue", ramp * 0)):
        palettes[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        palettes[f"{colour}PaletteColorLookupTableData"] = entries.tobytes()
    data = make_instance(values, PhotometricInterpretation="PALETTE COLOR", **palettes)
    expected = 0.299 * values + 0.587 * (255.0 - values)
    assert np.abs(render(data)[0] - expected).max() <= 0.51


def test_ybr_and_rgb_of_one_picture_have_one_luminance(make_instance: MakeInstance) -> None:
    rng = np.random.default_rng(3)
    rgb = rng.integers(0, 256, (16, 16, 3), np.uint8)
    weights = np.array(
        [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    )
    ybr = np.clip(np.rint(rgb @ weights.T + [0, 128, 128]), 0, 255).astype(np.uint8)
    colour = {"SamplesPerPixel": 3, "PlanarConfiguration": 0}
    as_rgb, _ = render(make_instance(rgb, PhotometricInterpretation="RGB", **colour))
    as_ybr, _ = render(make_instance(ybr, PhotometricInterpretation="YBR_FULL", **colour))
    assert np.abs(as_rgb.astype(int) - as_ybr).max() <= 1
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1))
    by_plane = make_instance(
        rgb,
        PhotometricInterpretation="RGB",
        SamplesPerPixel=3,
        PlanarConfiguration=1,
        PixelData=planes.tobytes(),
    )
    assert np.array_equal(render(by_plane)[0], as_rgb)


def test_a_window_that_cannot_be_read_is_left_out_with_a_warning(
    make_instance: MakeInstance,
) -> None:
    data = make_instance(WindowCenter=1234, WindowWidth=400).replace(b"1234", b"12,4")
    image = decode(data, side=16)
    assert image.warnings == ("(0028,1050) ignored: DICOM_MALFORMED",)
    assert any("default window" in step for step in image.applied)


def test_functional_groups_of_the_frame_outweigh_those_shared(make_instance: MakeInstance) -> None:
    def window(center: int) -> list[Dataset]:
        return [item(WindowCenter=center, WindowWidth=2)]

    values = np.stack([np.full((8, 8), 50, np.uint8), np.full((8, 8), 50, np.uint8)])
    data = make_instance(
        values[0],
        NumberOfFrames=2,
        PixelData=values.tobytes(),
        SharedFunctionalGroupsSequence=[item(FrameVOILUTSequence=window(10))],
        PerFrameFunctionalGroupsSequence=[item(), item(FrameVOILUTSequence=window(90))],
    )
    assert render(data, frame=1)[0].min() == 255
    assert render(data, frame=2)[0].max() == 0
