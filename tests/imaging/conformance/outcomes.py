"""What the product makes of every file in the shared collection."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dafh.deadline import Deadline
from dafh.errors import InvalidInput, Reason
from dafh.imaging.decode import REPRESENTATIVE
from dafh.imaging.image import Image
from dafh.imaging.limits import Limits, Policy
from dafh.imaging.pool import DecoderPool

SHARED = Path(__file__).resolve().parents[4] / "shared" / "dicom"
SIDE = 128
#: Seconds that a file may take, on the clock and on the processor each.
POLICY = Policy(limits=Limits(seconds=5))
#: Pixel Data (7FE0,0010) in either byte order, and the start of a JPEG file.
PIXEL_MARKS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10", b"\xff\xd8\xff")


@dataclass(frozen=True, slots=True)
class Listed:
    """A row of the collection's manifest."""

    file: str
    transfer_syntax: str
    #: Whether pydicom with pylibjpeg decodes it.
    marked_ok: bool

    @property
    def path(self) -> Path:
        """Where it is."""
        return SHARED / self.file


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a file."""

    listed: Listed
    #: Whether its bytes hold pixel data, by a look that knows nothing of the format.
    has_pixels: bool
    image: Image | None
    refusal: InvalidInput | None

    @property
    def reason(self) -> Reason | None:
        """Of the refusal."""
        return self.refusal.reason if self.refusal else None

    @property
    def single_grey(self) -> bool:
        """Whether it is an image of one frame and one sample a pixel, none of them colours."""
        if self.image is None or not self.image.metadata.transfer_syntax:
            return False
        colour = any("luminance" in step or "Y of" in step for step in self.image.applied)
        return self.image.metadata.frames == 1 and not colour


def listed() -> Iterator[Listed]:
    """Yield the rows of the manifest."""
    with (SHARED / "manifest.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            yield Listed(
                row["file"],
                row["transfer_syntax_uid"],
                row["decode_pydicom3_pylibjpeg"].startswith("ok"),
            )


def decoded(pool: DecoderPool, data: bytes) -> tuple[Image | None, InvalidInput | None]:
    """Return the representative frame, or why there is none."""
    try:
        image = pool.decode(data, side=SIDE, frame=REPRESENTATIVE, deadline=Deadline.never())
    except InvalidInput as refusal:
        return None, refusal
    return image, None


def judge(pool: DecoderPool, one: Listed) -> Outcome:
    """Decode the representative frame of a file."""
    data = one.path.read_bytes()
    image, refusal = decoded(pool, data)
    # Marks are hidden in a deflated data set.
    has_pixels = image is not None or any(mark in data for mark in PIXEL_MARKS)
    return Outcome(one, has_pixels, image, refusal)


def outcomes() -> list[Outcome]:
    """Decode every file, each in a process that it may end."""
    with DecoderPool(workers=1, policy=POLICY) as pool:
        return [judge(pool, one) for one in listed()]
