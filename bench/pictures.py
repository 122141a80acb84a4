"""Pictures of what was measured: small, of text and lines, the same for the same figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.waterfall import Step
from dafh.evaluation.protocol import OUTSIDE_BAR

BOUND, SERVER, DAFH = "#9a9a9a", "#e0a030", "#2f6fb5"
COLOURS = {"bound": BOUND, "server": SERVER, "DAFH": DAFH}
STYLE: dict[Any, Any] = {
    "axes.edgecolor": "#888888",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    # Text stays text, and names inside the file do not change from run to run.
    "svg.fonttype": "none",
    "svg.hashsalt": "dafh",
}
#: What is compared: key of a candidate's figures, title, how a figure is written, logarithmic.
PANELS: Sequence[tuple[str, str, str, bool]] = (
    ("map_at_10", "MAP@10\n(more is better)", "{:.2f}", False),
    ("p50", "one client: p50, ms\n(less)", "{:.1f}", True),
    ("per_s", "eight clients: answers/s\n(more)", "{:.0f}", True),
    ("cpu_ms", "processor, ms a query\n(less)", "{:.1f}", True),
    ("vector_bytes", "bytes of a vector\n(less)", "{:.0f}", True),
    ("first_answer_s", "first answer, s\n(less)", "{:.1f}", False),
)


@contextmanager
def drawn(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Yield an empty picture; it is written when the block ends."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(path, metadata={"Date": None})


def waterfall(steps: Sequence[Step], path: Path) -> None:
    """Draw where the time of a query goes: each step begins where the one above ends."""
    with drawn(path, 8, 3.9) as figure:
        axes = figure.subplots()
        begin = 0.0
        for row, step in enumerate(steps):
            axes.barh(row, step.ms, left=begin, color=COLOURS[step.whose], height=0.72)
            end = max(begin, begin + step.ms)
            axes.text(end, row, f" {step.ms:.2f}", va="center", fontsize=8)
            begin += step.ms
        axes.barh(len(steps), begin, color="#444444", height=0.72)
        axes.text(begin, len(steps), f" {begin:.1f} ms", va="center", fontsize=8)
        axes.set_yticks(range(len(steps) + 1), [*(step.name for step in steps), "the whole query"])
        axes.tick_params(left=False)
        axes.invert_yaxis()
        axes.set_xlim(0, begin * 1.12)
        axes.set_xlabel("ms, one client, medians")
        for name, text in (("bound", "bound"), ("server", "servers"), ("DAFH", "DAFH")):
            axes.barh(0, 0, color=COLOURS[name], label=text)
        axes.legend(loc="upper right", frameon=False)


def concurrency(loads: Sequence[dict[str, Any]], bound: float, path: Path) -> None:
    """Draw answers per second and latency against clients."""
    clients = [load["clients"] for load in loads]
    places = range(len(clients))
    with drawn(path, 8, 2.8) as figure:
        rates, times = figure.subplots(1, 2)
        rates.plot(places, [load["per_s"] for load in loads], "o-", color=DAFH)
        rates.axhline(bound, color=BOUND, linestyle="--")
        rates.text(
            places[-1], bound, "bound: a process a core", ha="right", va="bottom", fontsize=8
        )
        highest = max(bound, *(load["per_s"] for load in loads))
        rates.set(ylabel="answers per second", ylim=(0, 1.15 * highest))
        for name, style in (("p50", "o-"), ("p95", "o:")):
            times.plot(places, [load.get(name, 0) for load in loads], style, color=DAFH, label=name)
        times.set(ylabel="ms", ylim=(0, None))
        times.legend(frameon=False)
        for axes in (rates, times):
            axes.set_xticks(places, [str(one) for one in clients])
            axes.set_xlabel("clients that never pause")
            axes.grid(axis="y", alpha=0.25)


def memory(seen: dict[str, list[float]], every: float, path: Path) -> None:
    """Draw the memory of the servers during the run of `concurrency`."""
    colours = dict(zip(seen, (DAFH, SERVER, "#6a9a50"), strict=False))
    with drawn(path, 8, 2.4) as figure:
        axes = figure.subplots()
        for name, values in seen.items():
            seconds = [every * (place + 1) for place in range(len(values))]
            axes.plot(seconds, values, color=colours[name], label=name)
            if values:
                axes.text(seconds[-1], values[-1], f" {name}", color=colours[name], va="center")
        highest = max((max(values) for values in seen.values() if values), default=1.0)
        axes.set(xlabel="seconds, while clients become more", ylabel="MiB")
        axes.set_ylim(0, 1.1 * highest)
        axes.grid(axis="y", alpha=0.25)


def rivals(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw what is compared, a panel each, a row for each candidate."""
    names = list(found)
    colours = [DAFH if name.startswith("DAFH") else BOUND for name in names]
    with drawn(path, 11, 3.2) as figure:
        panels = figure.subplots(1, len(PANELS), sharey=True)
        for axes, (key, title, form, logarithmic) in zip(panels, PANELS, strict=True):
            values = [float(found[name][key]) for name in names]
            _bars(axes, values, colours, form.format, logarithmic=logarithmic)
            axes.set_title(title, fontsize=8, loc="left")
        panels[0].set_yticks(range(len(names)), names)
        panels[0].invert_yaxis()


def variants(found: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw quality over time: a line for each length over the sides, and another precision apart.

    Time is a multiple of that of the published side, which is the other precision's too: what ran
    beside the benchmark made all of them longer.
    """
    sides = [one for one in found if one["float_macro_bar"] is not None]
    others = [one for one in found if one["float_macro_bar"] is None]
    own = {one["side"] for one in others}
    base = next((one for one in sides if one["side"] in own), sides[0])

    def times(some: Sequence[dict[str, Any]]) -> list[float]:
        return [one["milliseconds"] / base["milliseconds"] for one in some]

    with drawn(path, 7, 4.5) as figure:
        axes = figure.subplots()
        ceilings = [one["float_macro_bar"] for one in sides]
        axes.plot(times(sides), ceilings, "k--", label="float cosine")
        for bits in reversed(sides[0]["macro_bar"]):
            quality = [one["macro_bar"][bits] for one in sides]
            (line,) = axes.plot(times(sides), quality, "o-", label=f"{bits} bits")
            apart = [one["macro_bar"][bits] for one in others]
            axes.plot(times(others), apart, "x", color=line.get_color())
        labels = [
            f"{one['side']}²\n{time:.2f}" for one, time in zip(sides, times(sides), strict=True)
        ]
        axes.set_xticks(times(sides), labels)
        crosses = ", ".join(one["name"] for one in others)
        axes.set_xlabel(f"side, and time as a multiple of that of {base['side']}² (x: {crosses})")
        axes.set_ylabel(f"macro MAP@10 without {', '.join(OUTSIDE_BAR)}")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)


def _bars(
    axes: Axes,
    values: list[float],
    colours: list[str],
    written: Callable[[float], str],
    *,
    logarithmic: bool,
) -> None:
    low = min(values) / 2 if logarithmic else 0
    if logarithmic:
        axes.set_xscale("log")
    axes.barh(range(len(values)), [value - low for value in values], left=low, color=colours)
    for row, value in enumerate(values):
        axes.text(value, row, f" {written(value)}", va="center", fontsize=8)
    axes.set_xlim(low, max(values) * (6 if logarithmic else 1.35))
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(left=False)
