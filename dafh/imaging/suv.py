"""Positron emission tomography: activity made comparable between patients.

Standardised uptake value by body weight: activity per millilitre, over the administered dose per
gram of the patient. Elements: PS3.3 C.8.9.1 (PET Series) and C.8.9.2 (PET Isotope); the formula is
the one in general use, written down by QIBA. Weight and dose are patient data: neither they nor
the factor made of them is ever told.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from dafh.imaging.elements import DataSet, Tag
from dafh.imaging.notes import Notes
from dafh.imaging.refusal import tag_name

#: What is needed -> the least and greatest number that is believed: from a mouse to the heaviest
#: of people, from 1 MBq (a dose in MBq is smaller) to 100 GBq, and half-lives of tracers.
BELIEVED = {
    Tag.PATIENT_WEIGHT: (0.01, 650.0),  # kg
    Tag.RADIONUCLIDE_TOTAL_DOSE: (1e6, 1e11),  # Bq
    Tag.RADIONUCLIDE_HALF_LIFE: (10.0, 1e6),  # s
}

#: Nothing is left to be seen after so many half-lives.
MOST_HALF_LIVES = 10.0

GRAMS = 1000.0  # per kilogram

#: What must have been corrected for (0028,0051): attenuation and decay.
CORRECTIONS = frozenset({"ATTN", "DECY"})

#: Date and time of day (PS3.5 6.2 DA, TM, DT); hours suffice, a zone is left out.
MOMENT = re.compile(r"([0-9]{8})([0-9]{2})([0-9]{2})?([0-9]{2})?(\.[0-9]{1,6})?([+-][0-9]{4})?")


class _UnknownError(Exception):
    """An element without which there is no SUV."""

    def __init__(self, tag: Tag) -> None:
        super().__init__(tag)
        self.tag = tag


def suv_factor(data_set: DataSet, notes: Notes) -> float | None:
    """Return what turns rescaled values of a PET image into SUV.

    Parameters
    ----------
    data_set
        The instance.
    notes
        Takes the element for want of which there is no SUV.

    Returns
    -------
    float | None
        In g/ml per unit of the rescaled values; 1 where they are SUV, `None` where it is unknown.
    """
    units = data_set.text(Tag.UNITS)
    if units == "GML":
        return 1.0
    try:
        if units != "BQML":
            raise _UnknownError(Tag.UNITS)
        if not set(data_set.texts(Tag.CORRECTED_IMAGE)) >= CORRECTIONS:
            raise _UnknownError(Tag.CORRECTED_IMAGE)
        weight = _believed(data_set, Tag.PATIENT_WEIGHT, notes)
        return weight * GRAMS / _dose(data_set, notes)
    except _UnknownError as unknown:
        # No fault of the file: de-identification takes the weight away.
        notes.applied.append(f"no SUV: {tag_name(unknown.tag)} is missing or cannot be right")
        return None


def _dose(data_set: DataSet, notes: Notes) -> float:
    """Return the dose in Bq at the moment that the image is corrected to."""
    tracers = data_set.items(Tag.RADIOPHARMACEUTICAL_INFORMATION_SEQUENCE)
    if len(tracers) != 1:
        raise _UnknownError(Tag.RADIOPHARMACEUTICAL_INFORMATION_SEQUENCE)
    dose = _believed(tracers[0], Tag.RADIONUCLIDE_TOTAL_DOSE, notes)
    match data_set.text(Tag.DECAY_CORRECTION):
        case "ADMIN":
            return dose
        case "START":
            half_life = _believed(tracers[0], Tag.RADIONUCLIDE_HALF_LIFE, notes)
            half_lives = _uptake(data_set, tracers[0]).total_seconds() / half_life
            if not 0 <= half_lives <= MOST_HALF_LIVES:
                raise _UnknownError(Tag.RADIOPHARMACEUTICAL_START_TIME)
            return float(dose * 2**-half_lives)
        case _:
            raise _UnknownError(Tag.DECAY_CORRECTION)


def _uptake(data_set: DataSet, tracer: DataSet) -> timedelta:
    """Return the time from the injection to the start of the series.

    Raises
    ------
    _UnknownError
        One is not known. A series that starts after its image was taken was made later, and says
        nothing about its start.
    """
    date = data_set.text(Tag.SERIES_DATE)
    start = _moment(date + data_set.text(Tag.SERIES_TIME))
    taken = _moment(data_set.text(Tag.ACQUISITION_DATE) + data_set.text(Tag.ACQUISITION_TIME))
    if start is None or (taken is not None and start > taken):
        raise _UnknownError(Tag.SERIES_TIME)
    injected = _moment(tracer.text(Tag.RADIOPHARMACEUTICAL_START_DATETIME))
    if injected is not None:
        return start - injected
    # Of the time alone the day is not known: it is the last one before the series.
    injected = _moment(date + tracer.text(Tag.RADIOPHARMACEUTICAL_START_TIME))
    if injected is None:
        raise _UnknownError(Tag.RADIOPHARMACEUTICAL_START_TIME)
    return (start - injected) % timedelta(days=1)


def _believed(data_set: DataSet, tag: Tag, notes: Notes) -> float:
    least, greatest = BELIEVED[tag]
    number = next(iter(notes.numbers(data_set, tag)), 0.0)
    if not least <= number <= greatest:
        raise _UnknownError(tag)
    return number


def _moment(text: str) -> datetime | None:
    found = MOMENT.fullmatch(text.replace(":", ""))
    if found is None:
        return None
    date, hour, minute, second, fraction, _ = found.groups()
    try:
        # A leap second is counted as the one before.
        return datetime(
            int(date[:4]),
            int(date[4:6]),
            int(date[6:]),
            int(hour),
            int(minute or 0),
            min(int(second or 0), 59),
            int(float(fraction or 0) * 1e6),
        )
    except ValueError:
        return None
