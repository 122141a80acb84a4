"""What the finished runs of the table say, as Markdown: means over seeds, paired differences."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dafh.codes import BITS
from dafh.evaluation.bootstrap import interval
from dafh.evaluation.manifest import Entry
from dafh.evaluation.protocol import OUTSIDE_BAR

REPORT_FILE = "README.md"
#: The row that all others are compared with.
SHIPPED = "shipped"
COMPARED = "64"


def write_report(rows: Iterable[str], query: Sequence[Entry], results: Path) -> None:
    """Write `REPORT_FILE` beside the results; rows without a result are named as such."""
    found = {
        name: [json.loads(path.read_text()) for path in sorted(results.glob(f"{name}-*.json"))
               if path.stem.rpartition("-")[0] == name]
        for name in rows
    }  # fmt: skip
    lines = [
        "# Methods compared",
        "",
        "Written by `make table` from the JSON files beside it; do not edit. Macro MAP@10 without "
        f"{', '.join(OUTSIDE_BAR)}, query → database, mean over seeds. Difference: the shipped "
        f"recipe minus the row at {COMPARED} bits, with the 95 % interval of a paired bootstrap "
        "over query groups; an interval that holds 0 is a tie.",
        "",
        "| row | " + " | ".join(f"{bits} bits" for bits in BITS) + " | seeds | difference |",
        "|---|" + "---|" * (len(BITS) + 2),
    ]
    ours = found.get(SHIPPED, [])
    for name, runs in found.items():
        if not runs:
            lines.append(f"| {name} |" + " |" * len(BITS) + " not run yet | |")
            continue
        for prefix in ("", "itq-", "lsh-"):
            lines += _line(name, prefix, runs, ours, query)
        for ranking in ("float", "pixels"):
            if ranking in runs[0]["query"]:
                mean = _mean(runs, ranking)
                lines.append(
                    f"| {name}: {ranking} |" + f" {mean} |" * len(BITS) + f" {len(runs)} | |"
                )
    results.mkdir(parents=True, exist_ok=True)
    (results / REPORT_FILE).write_text("\n".join(lines) + "\n")


def _line(
    name: str, prefix: str, runs: list[Any], ours: list[Any], query: Sequence[Entry]
) -> list[str]:
    rankings = [f"{prefix}{bits}" for bits in BITS]
    if not any(ranking in runs[0]["query"] for ranking in rankings):
        return []
    label = f"{name}: {prefix.rstrip('-')}" if prefix else name
    cells = [_mean(runs, ranking) for ranking in rankings]
    compared = f"{prefix}{COMPARED}"
    difference = ""
    if ours and compared in runs[0]["query"] and (name != SHIPPED or prefix):
        gap = _values(ours, COMPARED) - _values(runs, compared)
        difference = _paired(gap, query)
    return [f"| {label} | {' | '.join(cells)} | {len(runs)} | {difference} |"]


def _mean(runs: list[Any], ranking: str) -> str:
    values = [run["query"][ranking]["macro_bar"] for run in runs if ranking in run["query"]]
    return f"{np.mean(values):.3f}" if values else ""


def _values(runs: list[Any], ranking: str) -> NDArray[np.float64]:
    """Return AP@10 of each query, averaged over seeds."""
    averaged: NDArray[np.float64] = np.mean(
        [run["average_precision"][ranking] for run in runs], axis=0
    )
    return averaged


def _paired(gap: NDArray[np.float64], query: Sequence[Entry]) -> str:
    inside = [place for place, one in enumerate(query) if one.class_name not in OUTSIDE_BAR]
    classes = [query[place].class_name for place in inside]
    own = np.asarray(classes)
    mean = np.mean([gap[inside][own == name].mean() for name in np.unique(own)])
    low, high = interval(gap[inside], classes, [query[place].group for place in inside])
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
