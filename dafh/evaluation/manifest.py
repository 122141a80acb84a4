"""Image manifests: CSV files that name images, their class, split and group."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dafh.errors import InvalidInput, Misconfigured, Reason
from dafh.imaging.decode import decode

REQUIRED = ("file", "class", "split")
#: A cancer type that says there is none: never one that two images share.
NO_CANCER = "none"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a manifest: an image file and what is known of it ("" where nothing is)."""

    file: Path
    class_name: str
    split: str
    group: str
    modality: str = ""
    organ: str = ""
    cancer_type: str = ""


def read_manifest(manifest: Path, root: Path) -> list[Entry]:
    """Read a manifest; paths in it are relative to `root`.

    Columns ``file``, ``class`` and ``split`` are required; without ``group`` every image is a
    group of its own; ``modality``, ``organ`` and ``cancer_type`` are read where they are.

    Raises
    ------
    InvalidInput
        It is no CSV in UTF-8, a required column is missing, there is no row, or one has no class.
    """
    rows = _rows(manifest)
    missing = [name for name in REQUIRED if rows and name not in rows[0]]
    if missing or not rows:
        raise InvalidInput(
            Reason.ARGUMENT_INVALID,
            f"The manifest lacks {', '.join(missing) or 'rows'}.",
            subject="manifest",
        )
    for number, row in enumerate(rows, 1):
        if not row["class"].strip():
            raise InvalidInput(
                Reason.ARGUMENT_INVALID,
                f"Row {number} below the header of the manifest has no class.",
                remedy="Name its class, or take the row out.",
                subject="manifest",
            )
    return [
        Entry(
            root / row["file"],
            row["class"],
            row["split"],
            row.get("group") or row["file"],
            *(row.get(name) or "" for name in ("modality", "organ", "cancer_type")),
        )
        for row in rows
    ]


def in_no_order(entries: Sequence[Entry], root: Path) -> list[Entry]:
    """Return entries ordered by a digest of their file's path below `root`.

    Of equal codes the first answers. Manifests are sorted by class, most of them, and an archive
    is not: it has its cases by primary key.
    """

    def digest(entry: Entry) -> bytes:
        return hashlib.sha256(os.path.relpath(entry.file, root).encode()).digest()

    return sorted(entries, key=digest)


def _rows(manifest: Path) -> list[dict[str, str]]:
    """Read rows as they are; cells that a row lacks are empty."""
    try:
        # With a byte-order mark, as Excel writes it, or without.
        with manifest.open(encoding="utf-8-sig", newline="") as stream:
            return list(csv.DictReader(stream, restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no CSV in UTF-8"
        raise InvalidInput(
            Reason.SOURCE_UNREADABLE,
            f"The manifest cannot be read: {why}.",
            remedy=f"Name a CSV file in UTF-8 with the columns {', '.join(REQUIRED)}.",
            subject="manifest",
        ) from None


def hold_out(entries: list[Entry], share: float) -> tuple[list[Entry], list[Entry]]:
    """Cut a validation part off a split, whole groups at a time, the same on every call.

    Parameters
    ----------
    entries
        The split to cut.
    share
        Share of the groups of each class to hold out, in (0, 1); at least one group, and of a
        class with a single group none.

    Returns
    -------
    tuple[list[Entry], list[Entry]]
        What is left to train on, and what is held out.
    """
    groups: dict[str, set[str]] = {}
    for entry in entries:
        groups.setdefault(entry.class_name, set()).add(entry.group)
    held: set[str] = set()
    for members in groups.values():
        order = sorted(members, key=lambda group: hashlib.sha256(group.encode()).digest())
        held.update(order[: min(len(order) - 1, max(1, round(share * len(order))))])
    kept = [entry for entry in entries if entry.group not in held]
    return kept, [entry for entry in entries if entry.group in held]


def load_images(entries: list[Entry], side: int) -> NDArray[np.uint8]:
    """Load images as the gateway would see them: uint8 ``[N, 1, side, side]``.

    Raises
    ------
    Misconfigured
        An image cannot be used; it is named, for the manifest is of whoever calls.
    """
    images = np.empty((len(entries), 1, side, side), np.uint8)
    for image, entry in zip(images, entries, strict=True):
        try:
            image[:] = decode(entry.file.read_bytes(), side=side, content_hash=False).pixels
        except InvalidInput as error:
            raise Misconfigured(
                error.reason,
                f"{entry.file}: {error.message}",
                remedy="Take its row out of the manifest, or mend the file.",
                subject="manifest",
            ) from None
    return images
