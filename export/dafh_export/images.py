"""Labelled images of a manifest, for parity and calibration."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from dafh.errors import InvalidInput, Reason
from dafh.imaging.decode import REPRESENTATIVE, decode
from dafh_export.parity import Labelled

REQUIRED = {"file", "class", "split"}


def read_split(manifest: Path, root: Path, split: str, side: int, most: int = 0) -> Labelled:
    """Read the images of one split as the gateway would see them.

    Parameters
    ----------
    manifest
        CSV with the columns ``file``, ``class`` and ``split``.
    root
        Folder that the files are relative to.
    split
        Which rows.
    side
        Of the model input, pixels.
    most
        Take at most so many, evenly over the file; 0 takes all.

    Raises
    ------
    InvalidInput
        A column is missing, or the split is empty.
    """
    with manifest.open(newline="") as stream:
        table = csv.DictReader(stream)
        if missing := REQUIRED - set(table.fieldnames or ()):
            raise InvalidInput(
                Reason.ARGUMENT_INVALID,
                f"The manifest lacks the column {', '.join(sorted(missing))}.",
                subject="manifest",
            )
        found = [row for row in table if row["split"] == split]
    if not found:
        raise InvalidInput(
            Reason.ARGUMENT_INVALID,
            f"No row of the manifest is of the split {split}.",
            subject="manifest",
        )
    if most and len(found) > most:
        found = [found[index] for index in np.linspace(0, len(found) - 1, most).astype(int)]
    images = np.empty((len(found), 1, side, side), np.uint8)
    for image, row in zip(images, found, strict=True):
        data = (root / row["file"]).read_bytes()
        image[:] = decode(data, side=side, frame=REPRESENTATIVE).pixels
    return Labelled(images, [row["class"] for row in found])
