"""How far what the product shows is from what independent programs show."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dafh.imaging.decode import render

from .outcomes import Outcome
from .references import Grey, rendered_by_dcmtk, rendered_by_formula, voi_of

#: Grey levels by which two roundings of one formula may differ.
TOLERANCE = 1
DCMTK, FORMULA = "DCMTK", "GDCM + formula"


@dataclass(frozen=True, slots=True)
class Compared:
    """The product beside one reference; padding, which it shows black, is left out."""

    file: str
    reference: str
    #: Whether the reference shows the file at all.
    shown: bool
    #: Share of the pixels within `TOLERANCE`, and the difference that one in a thousand exceeds.
    within: float = 0.0
    permille: float = 0.0
    largest: int = 0

    @property
    def agrees(self) -> bool:
        """Whether every pixel is within `TOLERANCE`."""
        return self.shown and self.largest <= TOLERANCE


def compare(outcomes: list[Outcome]) -> Iterator[Compared]:
    """Compare every decodable grey file of one frame with each reference, at full resolution."""
    with tempfile.TemporaryDirectory() as folder:
        for outcome in outcomes:
            if outcome.single_grey and outcome.image is not None:
                yield from _compare(outcome.listed.path, outcome.image.applied, Path(folder))


def _compare(path: Path, applied: tuple[str, ...], work: Path) -> Iterator[Compared]:
    ours, _ = render(path.read_bytes())
    voi = voi_of(path, applied)
    formula = rendered_by_formula(path, voi, work)
    padding = np.zeros(ours.shape, bool) if formula is None else formula[1]
    theirs = {DCMTK: rendered_by_dcmtk(path, voi, work), FORMULA: formula and formula[0]}
    for reference, shown in theirs.items():
        if shown is None:
            yield Compared(path.name, reference, shown=False)
        elif shown.shape != ours.shape:
            yield Compared(path.name, reference, shown=True, largest=255, permille=255)
        else:
            yield _measured(path.name, reference, ours[~padding], shown[~padding])


def _measured(file: str, reference: str, ours: Grey, theirs: Grey) -> Compared:
    apart = np.abs(ours.astype(np.int16) - theirs.astype(np.int16))
    if not apart.size:
        return Compared(file, reference, shown=True, within=1.0)
    return Compared(
        file,
        reference,
        shown=True,
        within=float(np.mean(apart <= TOLERANCE)),
        permille=float(np.percentile(apart, 99.9)),
        largest=int(apart.max()),
    )
