"""A training set in memory, and how an epoch draws from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dafh.errors import InvalidInput, Misconfigured, Reason
from dafh.evaluation.manifest import Entry, hold_out, load_images
from dafh.imaging.image import IMAGING_VERSION
from dafh.imaging.phantom import phantom_images
from dafh.training.settings import Recipe
from dafh.writing import OPEN, written

UNLABELLED = -1


@dataclass(frozen=True, slots=True)
class Data:
    """What a run learns from, and what it is chosen by."""

    classes: tuple[str, ...]
    #: uint8 ``[N, 1, S, S]``.
    images: NDArray[np.uint8]
    #: int64 ``[N]``; `UNLABELLED` where an image has no class.
    labels: NDArray[np.int64]
    held_images: NDArray[np.uint8]
    held_labels: NDArray[np.int64]
    #: Of each held-out image: patient, near-duplicates.
    held_groups: tuple[str, ...]

    def digest(self) -> str:
        """Return what is different for other classes, images or labels, as hexadecimal digits."""
        whole = hashlib.sha256("\0".join(self.classes).encode())
        for part in (self.images, self.labels, self.held_images, self.held_labels):
            whole.update(np.ascontiguousarray(part).data)
        return whole.hexdigest()


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of one step, before any change."""

    #: uint8 ``[B, 1, S, S]``.
    images: Tensor
    #: int64 ``[B]``.
    labels: Tensor
    #: int64 ``[B]``: place of each image in the training set.
    sources: Tensor


def load_data(entries: Sequence[Entry], recipe: Recipe, cache: Path) -> Data:
    """Decode what a recipe needs, or map what an earlier run decoded.

    Parameters
    ----------
    entries
        The train split; a validation part is cut off it.
    recipe
        How to train.
    cache
        Folder of decoded images.

    Raises
    ------
    InvalidInput
        There are no entries, nothing can be held out of them, or a class is left without images.
    """
    kept, held = hold_out(list(entries), recipe.validation)
    classes = tuple(sorted({entry.class_name for entry in entries}))
    _check(classes, kept, held)
    images = cached_images(kept, recipe.side, cache)
    labels = _numbers(kept, classes)
    images = np.concatenate(
        [images, _cached_phantoms(recipe, cache), noise(recipe.noise, recipe.seed, recipe.side)]
    )
    labels = np.concatenate([labels, np.full(recipe.phantoms + recipe.noise, UNLABELLED)])
    held_images = cached_images(held, recipe.side, cache)
    groups = tuple(entry.group for entry in held)
    return Data(classes, images, labels, held_images, _numbers(held, classes), groups)


def _check(classes: Sequence[str], kept: Sequence[Entry], held: Sequence[Entry]) -> None:
    """Refuse what nothing can be learnt from."""
    left = {entry.class_name for entry in kept}
    missing = [name for name in classes if name not in left]
    said = ""
    if not classes:
        said = 'No row has the split "train".'
    elif not held:
        said = "Nothing can be held out to choose by: no class has images of two groups."
    elif missing:
        said = f"With a validation part held out, no image is left of {', '.join(missing)}."
    if said:
        raise InvalidInput(Reason.ARGUMENT_INVALID, said, subject="manifest")


def _numbers(entries: Sequence[Entry], classes: Sequence[str]) -> NDArray[np.int64]:
    numbers = {name: number for number, name in enumerate(classes)}
    return np.array([numbers[entry.class_name] for entry in entries], np.int64)


def cached_images(entries: Sequence[Entry], side: int, cache: Path) -> NDArray[np.uint8]:
    """Return images as the gateway would see them, uint8 ``[N, 1, side, side]``, mapped.

    A cache file is named by all that decides its content: file names, sizes and times, side and
    imaging version; so it is never stale, only unused.
    """
    digest = hashlib.sha256(f"{IMAGING_VERSION} {side}".encode())
    for entry in entries:
        try:
            about = entry.file.stat()
        except OSError as error:
            raise Misconfigured(
                Reason.SOURCE_UNREADABLE, f"An image of the manifest cannot be read: {error}"
            ) from None
        digest.update(f"\0{entry.file}\0{about.st_size}\0{about.st_mtime_ns}".encode())
    return _mapped(
        cache / f"{digest.hexdigest()[:24]}.npy", lambda: load_images(list(entries), side)
    )


def _cached_phantoms(recipe: Recipe, cache: Path) -> NDArray[np.uint8]:
    name = f"phantoms-{IMAGING_VERSION}-{recipe.phantoms}-{recipe.seed}-{recipe.side}.npy"
    return _mapped(cache / name, lambda: phantom_images(recipe.phantoms, recipe.seed, recipe.side))


def noise(count: int, seed: int, side: int) -> NDArray[np.uint8]:
    """Return pictures of noise, uint8 ``[count, 1, side, side]``.

    Their power falls with spatial frequency, by an exponent between 0 (white) and 4 (clouds).
    """
    random = np.random.default_rng([seed, 0])
    across = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij"))
    across[0, 0] = 1 / side
    pictures = np.empty((count, 1, side, side), np.uint8)
    for picture in pictures:
        waves = np.fft.rfft2(random.normal(size=(side, side))) / across ** random.uniform(0, 2)
        grey = np.fft.irfft2(waves, (side, side))
        low, high = np.quantile(grey, [random.uniform(0, 0.1), random.uniform(0.9, 1)])
        picture[0] = ((grey - low) / (high - low)).clip(0, 1) * 255
    return pictures


def _mapped(path: Path, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    if not path.exists():
        with written(path, OPEN) as stream:
            np.save(stream, make())
    images: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return images


def steps_per_epoch(data: Data, recipe: Recipe) -> int:
    """Return how many steps show about as many labelled images as there are."""
    return max(1, int((data.labels != UNLABELLED).sum()) // recipe.batch)


def draw(data: Data, recipe: Recipe, epoch: int) -> Iterator[Batch]:
    """Draw the batches of one epoch: the same for the same seed and epoch."""
    random = np.random.default_rng([recipe.seed, epoch])
    steps = steps_per_epoch(data, recipe)
    order = _draw(data.labels, steps * recipe.batch, random)
    for chosen in order.reshape(steps, recipe.batch):
        yield Batch(
            torch.from_numpy(data.images[chosen]),
            torch.from_numpy(data.labels[chosen]),
            torch.from_numpy(chosen),
        )


def draw_twice(
    data: Data, labelled: int, unlabelled: int, random: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Draw the places of one epoch's images, those without a class twice.

    Yields
    ------
    NDArray[np.int64]
        For each step `labelled` places of images with a class, and twice `unlabelled` of those
        without; fewer where there are not so many.
    """
    known = np.flatnonzero(data.labels != UNLABELLED)
    strange = np.flatnonzero(data.labels == UNLABELLED)
    labelled, unlabelled = min(labelled, len(known)), min(unlabelled, len(strange))
    steps = len(known) // labelled
    order = known[_draw(data.labels[known], steps * labelled, random)]
    others = random.permutation(strange)
    for step in range(steps):
        apart = others.take(range(step * unlabelled, (step + 1) * unlabelled), mode="wrap")
        own = order[step * labelled : (step + 1) * labelled]
        yield np.concatenate([own, apart, apart])


def _draw(labels: NDArray[np.int64], count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw `count` places, rare classes more often than common ones."""
    # The square root is a compromise: full balance would show the rarest image ten times as often.
    share = 1 / np.sqrt(np.bincount(labels + 1)[labels + 1])
    drawn: NDArray[np.int64] = random.choice(
        len(labels), count, p=share / share.sum(), replace=count > len(labels)
    )
    return drawn
