"""A contact sheet: the query and its hits side by side, each with how near it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

CELL = 176
CAPTION = 62
GAP = 10
COLUMNS = 6
BACKGROUND, INK, QUIET, ACCENT = "#11161c", "#e6edf3", "#8b98a5", "#4cc2ff"


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of the sheet."""

    #: uint8 ``[S, S]``.
    pixels: NDArray[np.uint8]
    #: Up to three short lines below it.
    caption: tuple[str, ...]


def draw_sheet(title: str, query: Panel, hits: list[Panel], path: Path) -> None:
    """Write the sheet as PNG: the query first, framed, then the hits in order."""
    panels = [query, *hits]
    rows = -(-len(panels) // COLUMNS)
    width = COLUMNS * (CELL + GAP) + GAP
    height = 44 + rows * (CELL + CAPTION + GAP)
    sheet = Picture.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 12), title, INK, ImageFont.load_default(17))
    for place, panel in enumerate(panels):
        left = GAP + place % COLUMNS * (CELL + GAP)
        top = 44 + place // COLUMNS * (CELL + CAPTION + GAP)
        sheet.paste(Picture.fromarray(panel.pixels).resize((CELL, CELL)), (left, top))
        if place == 0:
            draw.rectangle((left - 2, top - 2, left + CELL + 1, top + CELL + 1), None, ACCENT, 2)
        for line, text in enumerate(panel.caption):
            draw.text(
                (left, top + CELL + 4 + line * 18),
                text,
                (ACCENT if place == 0 else INK) if line == 0 else QUIET,
                ImageFont.load_default(13),
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
