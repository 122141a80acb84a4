"""What the finished runs of the table say, as Markdown: means over seeds, paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dafh.codes import BITS
from dafh.evaluation.manifest import Entry
from dafh.evaluation.protocol import OUTSIDE_BAR, averaged

REPORT_FILE = "README.md"
#: The row that all others are compared with.
SHIPPED = "shipped"


def write_report(
    rows: Mapping[str, str],
    found: Mapping[str, list[Any]],
    query: Sequence[Entry],
    results: Path,
) -> None:
    """Write `REPORT_FILE` beside the results; rows without a result are named as such.

    Parameters
    ----------
    rows
        Name -> what it is, for people.
    found
        Name -> finished runs.
    query
        The rows of the split query.
    results
        Folder of the finished runs.
    """
    ours = found.get(SHIPPED, [])
    lines = [
        "# Methods compared",
        "",
        "Written by `make table` from the JSON files beside it; do not edit. Macro MAP@10 without "
        f"{', '.join(OUTSIDE_BAR)}, query → database, mean over seeds.",
        "",
        "Difference: the shipped recipe minus the row, the mean over the row's code lengths, with "
        "the 95 % interval of a paired bootstrap over query groups; an interval that holds 0 is a "
        "tie. It says how sure the difference is for other queries, not for other trainings. "
        f"{_spread(ours)} Wide: the same difference where all images of the database ask those "
        "of other groups.",
        *_listed(found),
        "",
        "Names after a colon: rankings of the row's fused features, of no length (float), or by "
        "codes that are made of them (itq, lsh); of thumbnails (pixels).",
        "",
        "| row | what it is | " + " | ".join(f"{bits} bits" for bits in BITS)
        + " | seeds | difference | wide |",
        "|---|---|" + "---|" * (len(BITS) + 3),
    ]  # fmt: skip
    for name in rows:
        runs = found.get(name, [])
        if not runs:
            lines.append(f"| {name} | {rows[name]} |" + " |" * len(BITS) + " not run yet | | |")
            continue
        for kind in ("", "itq-", "lsh-", "float", "pixels"):
            lines += _line(name, _told(rows[name], runs), kind, runs, ours, query)
    results.mkdir(parents=True, exist_ok=True)
    (results / REPORT_FILE).write_text("\n".join(lines) + "\n")


def _spread(runs: list[Any]) -> str:
    """Say how far a row's seeds are from each other."""
    if len(runs) < 2:
        return "How much another seed would change is not known."
    each = [_bars(run) for run in runs]
    widest = [max(one[bits] for one in each) - min(one[bits] for one in each) for bits in each[0]]
    said = " / ".join(f"{gap:.3f}" for gap in widest)
    means = [float(np.mean(list(one.values()))) for one in each]
    return (
        f"The {len(runs)} seeds of the shipped recipe are {said} apart at "
        f"{' / '.join(each[0])} bits, {max(means) - min(means):.3f} in the mean: "
        "what differs by less, of one seed each, may be chance."
    )


def _listed(found: Mapping[str, list[Any]]) -> list[str]:
    """Say which rows were measured in the manifest's order."""
    names = [name for name, runs in found.items()
             if any(run["equal_codes"] == "as listed" for run in runs)]  # fmt: skip
    if not names:
        return []
    return [
        "",
        "Of equal codes those answered first that the manifest has first, which is by class, in: "
        f"{', '.join(names)}. That costs codes the more that are often equal: hash heads' at few "
        "bits.",
    ]


def _bars(run: dict[str, Any]) -> dict[str, float]:
    """Return macro MAP@10 by each code length that a run has."""
    return {str(bits): run["query"][str(bits)]["macro_bar"] for bits in BITS
            if str(bits) in run["query"]}  # fmt: skip


def _told(about: str, runs: list[Any]) -> str:
    """Say what a row is, how it departs from the published setting, and what it was trained in."""
    recipe = runs[0]["recipe"]
    if runs[0]["setting"]:
        weights = ", ".join(f"{name} {weight:g}" for name, weight in recipe["weights"].items())
        about += f"; chosen by validation: {weights}, rate {recipe['learning_rate']:g}"
    if {run["precision"] for run in runs} == {"32-true"}:
        about += "; trained in float32"
    return about


def _line(
    name: str, about: str, kind: str, runs: list[Any], ours: list[Any], query: Sequence[Entry]
) -> list[str]:
    of_length = kind in ("", "itq-", "lsh-")
    rankings = {bits: f"{kind}{bits}" if of_length else kind for bits in BITS}
    there = {bits: one for bits, one in rankings.items() if one in runs[0]["query"]}
    if not there:
        return []
    cells = [_mean(runs, there[bits]) if bits in there else "" for bits in BITS]
    gap = wide = ""
    if ours and (kind or name != SHIPPED):
        own = [str(bits) for bits in there]
        gap = _paired(_values(ours, own) - _values(runs, there.values()), query)
        wide = f"{_wide(ours, own) - _wide(runs, there.values()):+.3f}"
    label = f"{name}: {kind.rstrip('-')}" if kind else name
    said = "" if kind else about
    return [f"| {label} | {said} | {' | '.join(cells)} | {len(runs)} | {gap} | {wide} |"]


def _mean(runs: list[Any], ranking: str) -> str:
    return f"{np.mean([run['query'][ranking]['macro_bar'] for run in runs]):.3f}"


def _wide(runs: list[Any], rankings: Iterable[str]) -> float:
    """Return wide macro MAP@10, averaged over rankings and seeds."""
    rows = [run["wide"][ranking]["macro_bar"] for run in runs for ranking in rankings]
    return float(np.mean(rows))


def _values(runs: list[Any], rankings: Iterable[str]) -> NDArray[np.float64]:
    """Return AP@10 of each query, averaged over rankings and seeds."""
    averaged: NDArray[np.float64] = np.mean(
        [run["average_precision"][ranking] for run in runs for ranking in rankings], axis=0
    )
    return averaged


def _paired(gap: NDArray[np.float64], query: Sequence[Entry]) -> str:
    told = averaged(gap, [one.class_name for one in query], [one.group for one in query])
    if told.macro_bar is None or told.macro_bar_interval is None:
        return ""
    low, high = told.macro_bar_interval
    return f"{told.macro_bar:+.3f} ({low:+.3f} to {high:+.3f})"
