"""Images of a manifest as the model sees them: encoded once, measured in many ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dafh.deadline import Deadline
from dafh.encoding.port import Encoder
from dafh.errors import InvalidInput, Reason
from dafh.evaluation.manifest import Entry, in_no_order, read_manifest
from dafh.imaging.decode import REPRESENTATIVE, decode

BATCH = 32
#: Side of the thumbnails that the pixel floor compares.
THUMBNAIL = 32


@dataclass(frozen=True, slots=True)
class Rows:
    """Encoded images."""

    entries: tuple[Entry, ...]
    #: bits -> hash outputs, float32 ``[N, bits]``.
    hashes: dict[int, NDArray[np.float32]]
    #: float32 ``[N, classes]``.
    logits: NDArray[np.float32]
    #: float32 ``[N, THUMBNAIL²]``: what is left where there is no network.
    thumbnails: NDArray[np.float32]
    #: Reason -> how many images could not be read, or imaging refused; they are not here.
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def classes(self) -> list[str]:
        """``N`` class names."""
        return [entry.class_name for entry in self.entries]

    @property
    def groups(self) -> list[str]:
        """``N`` group names."""
        return [entry.group for entry in self.entries]

    def column(self, name: str) -> NDArray[np.str_]:
        """Return one column of the manifest, ``[N]``."""
        return np.array([getattr(entry, name) for entry in self.entries], dtype=np.str_)


def encode_manifest(
    manifest: Path, root: Path, encoder: Encoder, splits: Sequence[str] = ("database", "query")
) -> dict[str, Rows]:
    """Encode the rows of some splits of a manifest, through the imaging that the gateway has.

    Raises
    ------
    InvalidInput
        A column is missing, or a split has no image that can be read.
    """
    entries = in_no_order(read_manifest(manifest, root), root)
    encoded = {
        split: encode_entries([entry for entry in entries if entry.split == split], encoder)
        for split in splits
    }
    for split, rows in encoded.items():
        if not rows.entries:
            raise InvalidInput(
                Reason.ARGUMENT_INVALID,
                f"The manifest has no readable image of the split {split!r}, and "
                f"{rows.refused.total()} that are refused{listed(rows.refused)}.",
                remedy="Look at the column split, and at the folder that files are relative to.",
                subject="manifest",
            )
    return encoded


def encode_entries(entries: Sequence[Entry], encoder: Encoder) -> Rows:
    """Encode images; those that cannot be read, or imaging refuses, are left out and counted."""
    kept: list[Entry] = []
    images: list[NDArray[np.uint8]] = []
    refused: Counter[str] = Counter()
    for entry in entries:
        try:
            data = entry.file.read_bytes()
            image = decode(data, side=encoder.model.side, frame=REPRESENTATIVE)
        except InvalidInput as error:
            refused[error.reason.value] += 1
            continue
        except OSError:
            refused[Reason.SOURCE_UNREADABLE.value] += 1
            continue
        kept.append(entry)
        images.append(image.pixels)
    return encode_images(kept, images, encoder, refused)


def listed(refused: Mapping[str, int]) -> str:
    """Return how many were refused for which reason, in brackets; "" where none was."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(refused.items()))
    return f" ({reasons})" if reasons else ""


def encode_images(
    entries: Sequence[Entry],
    images: Sequence[NDArray[np.uint8]],
    encoder: Encoder,
    refused: Counter[str] | None = None,
) -> Rows:
    """Encode images that are decoded already, uint8 ``[1, S, S]`` each."""
    parts = [
        encoder.encode(np.stack(images[start : start + BATCH]), Deadline.never())
        for start in range(0, len(images), BATCH)
    ]
    model = encoder.model

    def joined(pieces: list[NDArray[np.float32]], width: int) -> NDArray[np.float32]:
        return np.concatenate(pieces) if pieces else np.empty((0, width), np.float32)

    return Rows(
        tuple(entries),
        {bits: joined([part.hashes[bits] for part in parts], bits) for bits in model.bits},
        joined([part.logits for part in parts], len(model.classes)),
        joined([thumbnail(image)[None] for image in images], THUMBNAIL**2),
        refused or Counter(),
    )


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return centred grey levels, so that a cosine between two is their correlation.

    Of uint8 ``[1, S, S]``: float32 ``[THUMBNAIL²]``.
    """
    small = cv2.resize(
        image[0].astype(np.float32), (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA
    )
    flat: NDArray[np.float32] = np.asarray(small, np.float32).ravel()
    flat -= flat.mean()
    return flat
