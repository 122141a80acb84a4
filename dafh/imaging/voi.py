"""What the file itself proposes to show: VOI LUTs and windows, and which of them is taken.

VOI LUT module: PS3.3 C.11.2; of frames: Frame VOI LUT, C.7.6.16.2.10. Several are alternative
views, of which one is applied (C.11.2.1.2.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dafh.errors import InvalidInput
from dafh.imaging.elements import DataSet, Tag
from dafh.imaging.lut import Lut, read_lut
from dafh.imaging.notes import Notes, Scopes
from dafh.imaging.windows import WHITE, VoiFunction, Window

#: Of more VOI LUTs, or windows, the rest is left out: nobody chooses among so many.
MOST_VIEWS = 64


class Voi(Protocol):
    """A way from values to grey levels; its text says which, for people."""

    def grey(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return grey levels 0 to 255, not rounded, of values of any shape."""


@dataclass(frozen=True, slots=True)
class VoiLut:
    """A VOI LUT, stretched onto the full grey range (PS3.3 C.11.2.1.1)."""

    table: Lut

    def __str__(self) -> str:
        return "VOI LUT"

    def grey(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """As `Voi.grey`."""
        # Some writers say fewer bits than the entries have.
        peak = max(2.0**self.table.bits - 1, float(self.table.entries.max()))
        return self.table(values) * (WHITE / peak)


@dataclass(frozen=True, slots=True)
class View:
    """One of the file's proposals."""

    #: Its explanation, a text of the file.
    name: str
    #: `None` where it is damaged.
    voi: Voi | None


def file_voi(scopes: Scopes, notes: Notes, window: int | str, *, signed: bool) -> Voi | None:
    """Return what to apply, `None` where the file has nothing that makes sense.

    Parameters
    ----------
    scopes
        Where the frame's VOI LUTs and windows are.
    notes
        Takes what is applied, and warnings.
    window
        The number of the view, from 1 (VOI LUTs come before windows), or its name: LUT Explanation
        (0028,3003), Window Center & Width Explanation (0028,1055). If there is none such, the
        first is taken.
    signed
        Whether values can be negative.
    """
    data_set = scopes.having(Tag.VOI_LUT_SEQUENCE, Tag.WINDOW_CENTER)
    views: list[View] = [*_tables(data_set, notes, signed=signed), *_windows(data_set, notes)]
    asked = [
        place
        for place, view in enumerate(views)
        if window == place + 1 or (isinstance(window, str) and _same(window, view.name))
    ]
    if not asked and window != 1:
        # Names are free text and not repeated, neither the file's nor the caller's.
        which = "of the name asked for" if isinstance(window, str) else str(window)
        notes.warnings.append(f"no window {which} among the {len(views)} of the file")
    for place in [*asked, *range(len(views))]:
        voi: Voi | None = views[place].voi
        if voi is not None:
            count = f" ({place + 1} of {len(views)})" if len(views) > 1 else ""
            notes.applied.append(f"{voi}{count}")
            return voi
    return None


def _same(asked: str, name: str) -> bool:
    return bool(name) and asked.strip().casefold() == name.strip().casefold()


def _tables(data_set: DataSet, notes: Notes, *, signed: bool) -> list[View]:
    views = []
    for item in data_set.items(Tag.VOI_LUT_SEQUENCE)[:MOST_VIEWS]:
        name = item.text(Tag.LUT_EXPLANATION)
        try:
            views.append(View(name, VoiLut(read_lut(item, signed=signed))))
        except InvalidInput as error:
            notes.ignored(Tag.VOI_LUT_SEQUENCE, error)
            views.append(View(name, None))
    return views


def _windows(data_set: DataSet, notes: Notes) -> list[View]:
    centers = notes.numbers(data_set, Tag.WINDOW_CENTER)[:MOST_VIEWS]
    widths = notes.numbers(data_set, Tag.WINDOW_WIDTH)[:MOST_VIEWS]
    if not centers or not widths:
        return []
    if len(centers) != len(widths):
        notes.warnings.append("(0028,1050) and (0028,1051) differ in number: some are left out")
    function = data_set.text(Tag.VOI_LUT_FUNCTION) or VoiFunction.LINEAR
    if function not in set(VoiFunction):
        notes.warnings.append("(0028,1056) ignored: an unknown VOI LUT function")
        function = VoiFunction.LINEAR
    views = []
    names = (*data_set.texts(Tag.WINDOW_EXPLANATION), *[""] * len(centers))
    for center, width, name in zip(centers, widths, names, strict=False):
        window = Window(center, width, VoiFunction(function))
        if window.valid:
            views.append(View(name, window))
        else:
            notes.warnings.append(f"(0028,1051) ignored: a width of {width:g} has no meaning")
            views.append(View(name, None))
    return views
