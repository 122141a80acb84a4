"""PET: activity to SUV, and the default window that stands on it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dafh.imaging.decode import decode, render
from dafh.imaging.limits import DEFAULT_LIMITS
from dafh.imaging.notes import Notes
from dafh.imaging.reader import read_instance
from dafh.imaging.suv import suv_factor

from .instances import write_instance

TRACER = {
    "RadionuclideTotalDose": "400000000",
    "RadionuclideHalfLife": "3600",
    "RadiopharmaceuticalStartTime": "100000",
}
#: One half-life from injection to scan: 70 kg and 200 MBq make 1 Bq/ml an SUV of 70 000 / 2e8.
PET: dict[str, Any] = {
    "Modality": "PT",
    "Units": "BQML",
    "CorrectedImage": ["DECY", "ATTN", "SCAT"],
    "DecayCorrection": "START",
    "PatientWeight": "70",
    "SeriesDate": "20200229",
    "SeriesTime": "110000.00",
    "AcquisitionDate": "20200229",
    "AcquisitionTime": "111500",
    "RescaleSlope": "1",
    "RescaleIntercept": "0",
}
FACTOR = 70_000 / 2e8


def pet(
    values: np.ndarray | None = None,
    tracer: dict[str, Any] | None = None,
    **elements: Any,  # noqa: ANN401  # Of an instance.
) -> bytes:
    """Return a PET image; an element given as `None` is left out."""
    item = Dataset()
    for keyword, value in (TRACER | (tracer or {})).items():
        if value:
            setattr(item, keyword, value)
    kept: dict[str, Any] = {
        keyword: value for keyword, value in (PET | elements).items() if value is not None
    }
    return write_instance(values, RadiopharmaceuticalInformationSequence=[item], **kept)


def factor(data: bytes) -> tuple[float | None, list[str]]:
    notes = Notes()
    return suv_factor(read_instance(data, DEFAULT_LIMITS).data_set, notes), notes.applied


@pytest.mark.parametrize(
    ("elements", "tracer", "expected"),
    [
        ({}, {}, FACTOR),
        ({"SeriesTime": "11"}, {}, FACTOR),
        ({}, {"RadiopharmaceuticalStartTime": "1000"}, FACTOR),
        # Injected the evening before.
        ({"SeriesTime": "003000"}, {"RadiopharmaceuticalStartTime": "233000"}, FACTOR),
        (
            {"AcquisitionDate": None},
            {"RadiopharmaceuticalStartDateTime": "20200229090000.000000+0100"},
            FACTOR * 2,
        ),
        (
            {"SeriesDate": "20200301"},
            {
                "RadiopharmaceuticalStartDateTime": "20200229110000",
                "RadionuclideHalfLife": "86400",
            },
            None,
        ),
        ({"DecayCorrection": "ADMIN"}, {}, FACTOR / 2),
        ({"DecayCorrection": "ADMIN"}, {"RadionuclideHalfLife": ""}, FACTOR / 2),
        ({"Units": "GML", "PatientWeight": None}, {"RadionuclideTotalDose": ""}, 1.0),
        ({"PatientWeight": "7.5"}, {}, FACTOR * 7.5 / 70),
    ],
)
def test_the_factor_is_weight_over_the_dose_that_is_left(
    elements: dict[str, Any], tracer: dict[str, Any], expected: float | None
) -> None:
    found, steps = factor(pet(tracer=tracer, **elements))
    # The series that starts the day after its image was taken is no series of that day.
    assert found == (None if expected is None else pytest.approx(expected))
    assert (not steps) is (expected is not None)


@pytest.mark.parametrize(
    ("elements", "tracer", "tag"),
    [
        ({"Units": "CNTS"}, {}, "(0054,1001)"),
        ({"Units": None}, {}, "(0054,1001)"),
        ({"CorrectedImage": ["DECY"]}, {}, "(0028,0051)"),
        ({"PatientWeight": None}, {}, "(0010,1030)"),
        ({"PatientWeight": "0"}, {}, "(0010,1030)"),
        ({"PatientWeight": "70000"}, {}, "(0010,1030)"),
        ({"DecayCorrection": "NONE"}, {}, "(0054,1102)"),
        ({"SeriesTime": None}, {}, "(0008,0031)"),
        ({"SeriesTime": "120000"}, {}, "(0008,0031)"),
        ({}, {"RadionuclideTotalDose": ""}, "(0018,1074)"),
        # In MBq, as old scanners wrote it.
        ({}, {"RadionuclideTotalDose": "400"}, "(0018,1074)"),
        ({}, {"RadionuclideTotalDose": "-4e8"}, "(0018,1074)"),
        ({}, {"RadionuclideHalfLife": "0"}, "(0018,1075)"),
        ({}, {"RadiopharmaceuticalStartTime": ""}, "(0018,1072)"),
        ({}, {"RadiopharmaceuticalStartTime": "110001"}, "(0018,1072)"),
        ({}, {"RadiopharmaceuticalStartDateTime": "20200229120000"}, "(0018,1072)"),
    ],
)
def test_without_a_believable_element_there_is_no_suv_and_it_is_named(
    elements: dict[str, Any], tracer: dict[str, Any], tag: str
) -> None:
    found, steps = factor(pet(tracer=tracer, **elements))
    assert found is None
    assert [re.findall(r"\(.{9}\)", step) for step in steps] == [[tag]]


@pytest.mark.parametrize(("time", "known"), [(b"11:00:00 ", True), (b"250000.00", False)])
def test_old_forms_of_a_time_are_read_and_impossible_ones_are_not(time: bytes, known: bool) -> None:
    found, _ = factor(pet().replace(b"110000.00", time))
    assert found == (pytest.approx(FACTOR) if known else None)


def test_two_tracers_are_none() -> None:
    tracers = [Dataset(), Dataset()]
    found, steps = factor(write_instance(RadiopharmaceuticalInformationSequence=tracers, **PET))
    assert found is None
    assert "(0054,0016)" in steps[0]


def noise(peak: int) -> np.ndarray:
    values = np.random.default_rng(5).integers(0, peak, (32, 32))
    return values.astype(np.uint16)


def test_a_slice_without_uptake_stays_dark() -> None:
    # 700 Bq/ml are an SUV of 0.25, a tenth of what may be white at least.
    grey, _ = render(pet(noise(714)))
    assert 20 <= grey.max() <= 26
    unknown, _ = render(pet(noise(714), PatientWeight=None))
    assert unknown.max() == 255


def test_zero_is_black_and_the_99th_percentile_white() -> None:
    values = noise(30_000) + np.uint16(5000)
    grey, _ = render(pet(values))
    white = np.percentile(values, 99, method="inverted_cdf")
    assert white * FACTOR > 2.5
    assert np.abs(grey - np.clip(values / white * 255, 0, 255)).max() <= 0.5 + 1e-6
    plain, _ = render(pet(values, PatientWeight=None))
    assert np.array_equal(plain, grey)


def test_a_window_of_the_file_applies_to_its_own_values() -> None:
    shown: dict[str, Any] = {"WindowCenter": "500", "WindowWidth": "1000"}
    image = decode(pet(noise(714), **shown), side=16)
    assert "SUV" not in image.applied
    assert any("window 500/1000" in step for step in image.applied)
    assert render(pet(noise(714), **shown))[0].max() > 150


def test_values_that_cannot_be_rescaled_have_no_suv() -> None:
    image = decode(pet(noise(714), RescaleSlope="0"), side=16)
    assert "SUV" not in image.applied


def test_weight_and_dose_are_not_told() -> None:
    # The window is given in SUV: in Bq/ml it would give away weight over dose.
    for known in (pet(noise(714)), pet(noise(714), PatientWeight="71717171")):
        text = repr(decode(known, side=16))
        assert not re.search(r"71717171|7142\.|3571\.|0\.00035|3\.5e-0|200000000|400000000", text)
