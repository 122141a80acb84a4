"""``python -m bench.strangeness`` compares ways to tell strangers on the networks of the folds.

Each network of `make strangers` is asked with images of the *train* split alone: those that it was
held out of tell what is known, those of the classes that it was never shown are strangers, and
phantoms, which it learnt to give no class, are others. So what is chosen here is measured
elsewhere: by `make strangers`, on database and query images.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf

from dafh.encoding.calibration import directions, in_a_row, largest_logit, strangeness
from dafh.evaluation.calibration import FALSE_ALARMS, prototypes
from dafh.evaluation.trust import judge_strangeness
from dafh.settings import CHECKOUT
from dafh.training.data import UNLABELLED, cached_images
from dafh.training.settings import Recipe
from dafh.training.strangers import RESULTS, STUDY, Fold, Study, fold_network
from dafh.training.table import Bench
from dafh.training.validation import FUSED, LOGITS, embed, hash_outputs

KEPT = CHECKOUT / "docs" / "performance"
#: Principal directions that are taken for what is known.
PRINCIPAL = 64

Rows = NDArray[np.float32]
Score = Callable[["Told"], NDArray[np.float64]]


class Told:
    """What a network tells of ``N`` images.

    Attributes
    ----------
    hashes, fused, logits
        float32 ``[N, ...]``; hash outputs of all lengths in a row.
    """

    def __init__(self, outputs: dict[str, Rows], bits: tuple[int, ...]) -> None:
        self.hashes = in_a_row(hash_outputs(outputs, bits))
        self.fused, self.logits = outputs[FUSED], outputs[LOGITS]


def scores(learnt: Told, classes: list[str]) -> dict[str, Score]:
    """Return each way to tell strangers, fitted on what the network was trained on."""
    names = np.array(classes)
    drawn = prototypes({learnt.hashes.shape[1]: learnt.hashes}, classes).astype(np.float32)
    means = np.stack([directions(learnt.hashes)[names == one].mean(axis=0) for one in set(names)])
    fused = learnt.fused
    return {
        "largest logit": lambda told: largest_logit(told.logits),
        "length of the fused features": lambda told: -_lengths(told.fused),
        "hash outputs, nearest image": _nearest(learnt.hashes, lambda told: told.hashes),
        "hash outputs, nearest of four prototypes": _nearest(drawn, lambda told: told.hashes),
        "hash outputs, nearest class mean": _nearest(means, lambda told: told.hashes),
        "bits, nearest image": _nearest(np.sign(learnt.hashes), lambda told: np.sign(told.hashes)),
        "fused features, nearest image": _nearest(fused, lambda told: told.fused),
        "fused features, residual": _residual(fused),
        "fused features, Mahalanobis": _mahalanobis(fused, names, lambda told: told.fused),
        "hash outputs, relative Mahalanobis": _relative(
            learnt.hashes, names, lambda told: told.hashes
        ),
        "fused features of length 1, relative Mahalanobis": _relative(
            directions(fused), names, lambda told: directions(told.fused)
        ),
    }


def _lengths(rows: Rows) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.linalg.norm(rows, axis=1).astype(np.float64)
    return lengths


def _nearest(base: Rows, of: Callable[[Told], Rows]) -> Score:
    known = directions(base.astype(np.float32))
    return lambda told: strangeness({known.shape[1]: of(told)}, known)


def _residual(base: Rows) -> Score:
    """ViM's residual (Wang et al., CVPR 2022), over the length."""
    centre = base.mean(axis=0)
    outside = np.linalg.svd(base - centre, full_matrices=False)[2][PRINCIPAL:]
    return lambda told: _lengths((told.fused - centre) @ outside.T) / _lengths(told.fused)


def _mahalanobis(base: Rows, names: NDArray[np.str_], of: Callable[[Told], Rows]) -> Score:
    """Lee et al., NeurIPS 2018."""
    means = [base[names == one].mean(axis=0) for one in np.unique(names)]
    spread = np.concatenate(
        [base[names == one] - mean for one, mean in zip(np.unique(names), means, strict=True)]
    )
    inverse = _inverse(spread)
    return lambda told: np.min([_far(of(told) - mean, inverse) for mean in means], axis=0)


def _relative(base: Rows, names: NDArray[np.str_], of: Callable[[Told], Rows]) -> Score:
    """Ren et al., 2021 (arXiv 2106.09022): less the distance to all classes together."""
    nearest, centre = _mahalanobis(base, names, of), base.mean(axis=0)
    inverse = _inverse(base - centre)
    return lambda told: nearest(told) - _far(of(told) - centre, inverse)


def _inverse(spread: Rows) -> Rows:
    inverse: Rows = np.linalg.inv(LedoitWolf(assume_centered=True).fit(spread).covariance_)
    return inverse


def _far(gaps: Rows, inverse: Rows) -> NDArray[np.float64]:
    far: NDArray[np.float64] = ((gaps @ inverse) * gaps).sum(axis=1)
    return far


def judge(fold: Fold, run: Path, recipe: Recipe, bench: Bench) -> Iterator[tuple[str, list[float]]]:
    """Yield for each score AUROC, share of strangers found, and of phantoms."""
    # What `make strangers` has trained already is only read.
    data, network = fold_network(fold, run, recipe, bench)
    shown = data.labels != UNLABELLED
    strangers = [one for one in bench.entries("train") if fold.holds(one)]
    left_out = cached_images(strangers, recipe.side, bench.runs / "images")
    learnt, held, strange, phantoms = (
        Told(embed(network, images), network.architecture.bits)
        for images in (data.images[shown], data.held_images, left_out, data.images[~shown])
    )
    names = [data.classes[label] for label in data.labels[shown]]
    for name, score in scores(learnt, names).items():
        known, others = score(held), score(strange)
        beyond = float(np.quantile(known, 1 - FALSE_ALARMS))
        judged = judge_strangeness(known, others, beyond)
        yield name, [judged.auroc, judged.detected, float((score(phantoms) > beyond).mean())]


def main() -> None:
    """Ask all networks, and keep what they found."""
    parser = argparse.ArgumentParser(prog="python -m bench.strangeness", description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--study", type=Path, default=STUDY, help="the declared folds")
    parser.add_argument("--runs", type=Path, default=Path("runs/strangers"))
    parser.add_argument("--out", type=Path, default=KEPT, help="where strangeness.json goes")
    options = parser.parse_args()
    study = Study.model_validate(tomllib.loads(options.study.read_text()))
    recipe = Recipe.model_validate(study.recipe)
    bench = Bench(manifest=options.manifest, root=options.root, runs=options.runs, results=RESULTS)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, fold in study.folds.items():
        for score, figures in judge(fold, options.runs / name, recipe, bench):
            told = dict(zip(("auroc", "found", "phantoms"), figures, strict=True))
            found.setdefault(score, {})[name] = {key: round(one, 4) for key, one in told.items()}
    (options.out / "strangeness.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
