"""Thumbnails of all that the product makes of the collection, for people to look at."""

from __future__ import annotations

from pathlib import Path

from PIL import Image as Pillow
from PIL import ImageDraw

from .outcomes import SIDE, Outcome

COLUMNS, ROWS = 10, 6
CAPTION = 36
#: Characters of a name on a line.
LINE = 22


def write_sheets(outcomes: list[Outcome], folder: Path) -> list[Path]:
    """Write sheets of thumbnails with the names of their files beneath."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = [one for one in outcomes if one.image is not None]
    sheets = []
    for number, start in enumerate(range(0, len(shown), COLUMNS * ROWS), start=1):
        sheet = Pillow.new("L", (COLUMNS * (SIDE + 6), ROWS * (SIDE + CAPTION)), 96)
        draw = ImageDraw.Draw(sheet)
        for place, one in enumerate(shown[start : start + COLUMNS * ROWS]):
            x, y = place % COLUMNS * (SIDE + 6), place // COLUMNS * (SIDE + CAPTION)
            if one.image is not None:
                sheet.paste(Pillow.fromarray(one.image.pixels[0]), (x, y))
            name = one.listed.file.removesuffix(".dcm")
            lines = [name[cut : cut + LINE] for cut in range(0, 3 * LINE, LINE)]
            draw.multiline_text((x, y + SIDE), "\n".join(lines), fill=255, font_size=10, spacing=1)
        sheets.append(folder / f"sheet-{number}.png")
        sheet.save(sheets[-1])
    return sheets
