"""Which of the file's own VOI LUTs and windows is applied."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dafh.imaging.decode import decode, render
from dafh.imaging.voi import MOST_VIEWS

from .instances import MakeInstance

THREE = {
    "WindowCenter": ["10", "100", "200"],
    "WindowWidth": ["2", "2", "2"],
    "WindowCenterWidthExplanation": ["Brain", "Secret Ward 7", "BONE"],
}


def voi_lut(name: str, step: int, *, entries: int = 256, first: int = 0) -> Dataset:
    """Return a VOI LUT that is white from `step` on."""
    made = Dataset()
    made.LUTDescriptor = [entries, first, 8]
    made.LUTExplanation = name
    made.LUTData = np.where(np.arange(256) >= step, 255, 0).astype("<u2").tobytes()
    made["LUTData"].VR = "OW"
    return made


def step(data: bytes, window: int | str) -> int:
    """Return the first of the stored values 0 to 255 that is white."""
    grey, _ = render(data, window=window)
    return int(np.argmax(grey.ravel() == 255))


@pytest.mark.parametrize(
    ("window", "expected"),
    [(1, 10), (2, 100), (3, 200), ("Brain", 10), ("bone ", 200), ("SECRET WARD 7", 100)],
)
def test_a_window_is_taken_by_number_or_name(
    window: int | str, expected: int, make_instance: MakeInstance
) -> None:
    data = make_instance(**THREE)
    assert step(data, window) == expected
    image = decode(data, side=16, window=window)
    assert any(f"({[10, 100, 200].index(expected) + 1} of 3)" in one for one in image.applied)
    assert not image.warnings


@pytest.mark.parametrize("window", [0, -1, 4, 10**9, "Lung", ""])
def test_a_window_that_is_not_there_gives_the_first_and_a_warning(
    window: int | str, make_instance: MakeInstance
) -> None:
    data = make_instance(**THREE)
    image = decode(data, side=16, window=window)
    assert step(data, window) == 10
    (warning,) = image.warnings
    assert "of the file" in warning
    assert "Secret" not in repr(image)
    assert "Lung" not in repr(image)
    bare = decode(make_instance(), side=16, window=2)
    assert len(bare.warnings) == 1


def test_tables_come_before_windows_and_have_names_too(make_instance: MakeInstance) -> None:
    tables = [voi_lut("Low", 20), voi_lut("High", 90)]
    data = make_instance(VOILUTSequence=tables, **THREE)
    assert [step(data, window) for window in range(1, 6)] == [20, 90, 10, 100, 200]
    assert (step(data, "high"), step(data, "brain")) == (90, 10)
    assert "VOI LUT (1 of 5)" in decode(data, side=16).applied


def test_a_name_inside_an_item_has_the_character_set_of_the_file(
    make_instance: MakeInstance,
) -> None:
    data = make_instance(
        SpecificCharacterSet="ISO_IR 192",
        VOILUTSequence=[voi_lut("Gehirn", 20), voi_lut("Knöchern", 90)],
    )
    assert step(data, "knöchern") == 90


def test_a_damaged_table_gives_way_to_the_window(make_instance: MakeInstance) -> None:
    broken = voi_lut("Low", 20, entries=999)
    data = make_instance(VOILUTSequence=[broken], WindowCenter="100", WindowWidth="2")
    assert step(data, 1) == 100
    assert "(0028,3010) ignored: DICOM_MALFORMED" in decode(data, side=16).warnings


def test_a_window_without_a_meaning_gives_way_to_the_next(make_instance: MakeInstance) -> None:
    data = make_instance(WindowCenter=["10", "100"], WindowWidth=["0", "2"])
    assert step(data, 1) == 100
    assert any("(0028,1051) ignored" in warning for warning in decode(data, side=16).warnings)
    none = decode(make_instance(WindowCenter="10", WindowWidth="0"), side=16)
    assert any("default window" in one for one in none.applied)


def test_centers_and_widths_are_taken_in_pairs(make_instance: MakeInstance) -> None:
    data = make_instance(WindowCenter=["10", "100"], WindowWidth="2")
    assert step(data, 2) == 10
    assert any("differ in number" in warning for warning in decode(data, side=16).warnings)


def test_an_unknown_function_reads_as_linear_with_a_warning(make_instance: MakeInstance) -> None:
    shown = {"WindowCenter": "100", "WindowWidth": "50"}
    plain, _ = render(make_instance(**shown))
    data = make_instance(VOILUTFunction="CUBIC", **shown)
    assert np.array_equal(render(data)[0], plain)
    assert any("(0028,1056)" in warning for warning in decode(data, side=16).warnings)


def test_a_table_begins_below_zero_if_values_can(make_instance: MakeInstance) -> None:
    # PS3.3 C.11.2.1.1: the first input is signed if the modality step can give negative values,
    # whether or not this slice has one.
    values = np.arange(2000, 2064, dtype=np.uint16).reshape(8, 8)
    table = voi_lut("", 150, first=2**16 - 24)
    data = make_instance(values, VOILUTSequence=[table], RescaleSlope="1", RescaleIntercept="-1900")
    assert step(data, 1) == 150 - 24 - 100
    unsigned = make_instance(values + 40000, VOILUTSequence=[voi_lut("", 30, first=42000)])
    assert step(unsigned, 1) == 30


def test_no_more_than_so_many_views_are_looked_at(make_instance: MakeInstance) -> None:
    count = MOST_VIEWS + 9
    data = make_instance(
        WindowCenter=[str(center) for center in range(1, count + 1)], WindowWidth=["2"] * count
    )
    assert step(data, MOST_VIEWS) == MOST_VIEWS
    assert step(data, MOST_VIEWS + 1) == 1
