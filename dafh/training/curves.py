"""The curves of a run: its terms, and what validation says."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure


def draw_curves(history: list[dict[str, float]], path: Path) -> None:
    """Write a PNG: terms of the objective on the left, validation MAP@10 on the right."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    terms, validation = figure.subplots(1, 2)
    names = dict.fromkeys(name for figures in history for name in figures)
    for name in names:
        if name in ("epoch", "seconds"):
            continue
        shown = [figures for figures in history if name in figures]
        side = validation if "map" in name else terms
        side.plot(
            [figures["epoch"] for figures in shown], [figures[name] for figures in shown],
            label=name, marker="." if "map" in name else "",
        )  # fmt: skip
    for side, title in ((terms, "terms of the objective, weighted"), (validation, "MAP@10")):
        side.set(xlabel="epoch", title=title)
        if side.lines:
            # "best", the default, takes seconds of a busy machine; terms fall and MAP rises.
            side.legend(fontsize="small", loc="upper right" if side is terms else "lower right")
    figure.savefig(path, dpi=100)
