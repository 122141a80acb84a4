"""The page on finding cases, and its plots, from what `bench.index` kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.pictures import BOUND, DAFH, SERVER, drawn

KEPT = Path(__file__).resolve().parent.parent / "docs" / "performance" / "index"
PAGE = KEPT.parent / "index.md"
#: The size that the plot is drawn on to, and from which at least.
LEAST = 10**6
BEYOND = 10**9

Result = dict[str, Any]


def write_page(steps: Sequence[str], kept: Path = KEPT, page: Path = PAGE) -> None:
    """Write the page and its plots, and which of the steps are not measured."""
    results = {path.stem: json.loads(path.read_text()) for path in sorted(kept.glob("*.json"))}
    searches = [one for name, one in results.items() if name.startswith("search-")]
    growth = sorted(
        (one for name, one in results.items() if name.startswith("growth-")),
        key=lambda one: int(one["rows"]),
    )
    floats = [one for name, one in results.items() if name.startswith("floats-")]
    parts = [_head(list(results.values())), report(searches, floats)]
    if len(growth) > 1:
        _plot(growth, kept / "growth.svg")
        parts.append(_growth(growth))
    if missing := [f"`{name}`" for name in steps if name not in results]:
        parts.append(
            f"**Not measured yet**, of the steps of `make bench-full`: {', '.join(missing)}."
        )
    page.write_text("\n\n".join(parts) + "\n")


def report(searches: list[Result], floats: Sequence[Result] = ()) -> str:
    """Return the tables of searches, memory and writes."""
    return "\n\n".join([_searches(searches), _memory(searches, floats)])


def table(head: tuple[str, ...], *rows: tuple[object, ...]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def _head(results: list[Result]) -> str:
    kinds = sorted({(one["date"], one["machine"], one["versions"]) for one in results})
    where = "\n".join(f"- {date}: {machine}; {versions}" for date, machine, versions in kinds)
    busiest = max(float(one["busy"]) for one in results)
    return f"""# Finding cases

Written by `python -m bench.index --page` from the JSON files in [index/](index/), which
`make bench-full` measures; do not edit. Milvus and whoever asks share the processors, which other
work kept busy by {busiest:.0%} at most before each step.

{where}

*faiss* is `IndexBinaryFlat` over the same codes, in the asking process, on one thread, by turns in
the same run: the bound. *Product* is `MilvusIndex.search`, whole cases with their fields, ordered
and with ties complete. *Server alone* is the same server asked for ten keys and nothing else,
without any condition. *Real* codes are made from those that the model in the repository gives to
the images of the corpus: a hash output, plus half of the difference between those of two other
images of its class, then the sign (`bench/codes.py`). So they lie in classes, with the ties that
these have; a variety that the corpus lacks they lack too. *Uniform* ones are fair bits.
Filtered is `modality = "CT"`, which half of the cases meet."""


def _searches(searches: list[Result]) -> str:
    rows: list[tuple[object, ...]] = []
    bars: list[tuple[object, ...]] = []
    for one in searches:
        kinds = [("BIN_FLAT", one["flat"])]
        if "ivf" in one:
            kinds.append((f"BIN_IVF_FLAT, {_lists(one['ivf'])}", one["ivf"]["latency"]))
        for kind, measured in kinds:
            rows += [
                (
                    one["server"], one["codes"], kind, m["clients"],
                    "yes" if m["filtered"] else "no", m["p50_ms"], m["p95_ms"], m["per_second"],
                    f"{m['p50_ms'] / m['faiss_p50_ms']:.1f}",
                )
                for m in measured
            ]  # fmt: skip
        faiss = one["flat"][0]["faiss_p50_ms"]
        for kind, bare in (
            ("BIN_FLAT", one["flat_bare"]),
            *([("BIN_IVF_FLAT", one["ivf"]["bare"])] if "ivf" in one else []),
        ):
            bars.append(
                (
                    one["server"], one["codes"], kind, faiss, bare["p50_ms"],
                    f"{bare['p50_ms'] / faiss:.1f}", bare["tenant_p50_ms"],
                    one["ivf"]["recall"] if kind == "BIN_IVF_FLAT" else "exact",
                )
            )  # fmt: skip
    counts = sorted({f"{one['rows']:,}" for one in searches})
    return "\n\n".join(
        [
            f"## Top 10 of {' and '.join(counts)} codes of 64 bits",
            "The product:",
            table(
                ("server", "codes", "index", "clients", "filtered", "p50, ms", "p95, ms",
                 "per second", "p50 / faiss"),
                *rows,
            ),
            "The server alone, one client; recall is tie-aware (a hit counts that is as near as "
            "the tenth nearest), of the product's answers:",
            table(
                ("server", "codes", "index", "faiss p50, ms", "p50, ms", "p50 / faiss",
                 "with `tenant ==`, ms", "recall"),
                *bars,
            ),
        ]
    )  # fmt: skip


def _lists(index: Result) -> str:
    return f"{index['nprobe']} of {index['nlist']} lists"


def _memory(searches: list[Result], floats: Sequence[Result]) -> str:
    def per_million(one: Result, what: str) -> str:
        return f"{one['memory'][what] / one['rows']:.0f}"

    rows: list[tuple[object, ...]] = [
        (
            f"codes, {one['codes']}", one["server"], one["rows"], per_million(one, "anonymous"),
            per_million(one, "mapped"), per_million(one, "disk"), one["fill_rows_per_second"],
            one["upsert"]["rows_per_second"],
        )
        for one in searches
    ]  # fmt: skip
    text = [
        "## Memory, disk, writes",
        "Megabytes per million cases, which is bytes a case, with all fields of a case: UIDs, "
        "pseudonym, hashes and text are most of it; a code is 8 bytes, stored twice. *Filled* is "
        "how fast columns are taken as they are, *upsert* is the product's, acknowledged after a "
        "Strong read.",
        table(
            ("what", "server", "cases", "memory", "mapped", "disk", "filled, rows/s",
             "upsert, rows/s"),
            *rows,
        ),
    ]  # fmt: skip
    if floats:
        text += [
            "The same as float vectors, 512 numbers a case, in the same standalone server, with no "
            "other field than a key and the modality; the cheapest search at recall 0.99, or the "
            "best there was:",
            table(
                ("index", "vectors", "memory", "disk", "build, s", "p50, ms", "recall"),
                *(
                    (
                        one["build"]["index_type"], one["rows"], per_million(one, "anonymous"),
                        per_million(one, "disk"), one["build_seconds"], one["chosen"]["p50_ms"],
                        one["chosen"]["recall"],
                    )
                    for one in floats
                ),
            ),
        ]  # fmt: skip
    return "\n\n".join(text)


def _line(growth: list[Result], what: str) -> tuple[float, float]:
    """Return offset and slope per case of a straight line through the larger half."""
    upper = growth[-3:]
    slope, offset = np.polyfit(
        [one["rows"] for one in upper], [float(one[what]) for one in upper], 1
    )
    return float(offset), float(slope)


def _growth(growth: list[Result]) -> str:
    rows = [
        (
            f"{one['rows']:,}", one["faiss_p50_ms"], one["flat_p50_ms"], one["ivf_p50_ms"],
            _lists(one["ivf"]), one["ivf_recall"], one["ivf"]["fit_seconds"],
            one["memory"]["anonymous"] >> 20, one["memory"]["mapped"] >> 20,
            one["memory"]["disk"] >> 20,
        )
        for one in growth
    ]  # fmt: skip
    head = (
        "cases", "faiss, ms", "BIN_FLAT, ms", "BIN_IVF_FLAT, ms", "lists read", "recall", "fit, s",
        "memory, MiB", "mapped, MiB", "disk, MiB",
    )  # fmt: skip
    text = [
        "## Growth",
        "Real codes, standalone server, one client, unfiltered, fields mapped from files.",
        table(head, *rows),
        "![Growth](index/growth.svg)",
    ]
    if growth[-1]["rows"] >= LEAST:
        text += [_price(growth), _beyond(growth)]
    return "\n\n".join(text)


def _price(growth: list[Result]) -> str:
    """Say what a call costs before anything is searched, against faiss's million."""
    first = growth[0]
    million = next(one for one in growth if one["rows"] >= LEAST)
    call, bound = first["flat_p50_ms"] - first["faiss_p50_ms"], million["faiss_p50_ms"]
    return f"""Of {first["rows"]:,} cases, which faiss searches in {first["faiss_p50_ms"]} ms, the
product finds ten in {first["flat_p50_ms"]} ms: {call:.1f} ms are the call, with its two processes,
gRPC, pymilvus and the fields of ten cases. That is {call / bound:.1f} times what faiss takes for
{million["rows"]:,} codes in the asking process. **The aim of answers within twice of faiss at a
million is not met**, and no index behind such a call can meet it."""


def _beyond(growth: list[Result]) -> str:
    offset, slope = _line(growth, "flat_p50_ms")
    _, ivf = _line(growth, "ivf_p50_ms")
    last = growth[-1]
    size = BEYOND / last["rows"]
    memory = last["memory"]["anonymous"] + last["memory"]["mapped"]
    return f"""**To 10⁹ cases, drawn on from {last["rows"]:,} and not measured.** It assumes that a
query node searches its segments one after another as this server does, so that BIN_FLAT costs
{offset:.1f} ms and {1e6 * slope:.2f} ms a million, and BIN_IVF_FLAT {1e6 * ivf:.2f} ms a million
(lists are made in each segment, and segments keep their size: the cost is a line, not a root); that
nodes share segments evenly and answer at once; that memory and disk go with the number of cases;
that codes go on to tie as these do; and that proxies and the network add nothing. On one node as
this, 10⁹ cases would take {(offset + slope * BEYOND) / 1000:.1f} s flat and
{ivf * BEYOND / 1000:.1f} s with lists, {size * last["memory"]["disk"] / 2**40:.2f} TiB of disk and
{size * memory / 2**30:.0f} GiB of memory and mapped files; a hundred such nodes would answer with
lists in {10 * ivf * BEYOND / 1000:.0f} ms and more. Much of it is the condition on the tenant,
which every query carries (above)."""


def _plot(growth: list[Result], path: Path) -> None:
    sizes = np.array([one["rows"] for one in growth], float)
    beyond = np.geomspace(sizes[-1], BEYOND, 20)
    with drawn(path, 7, 4) as figure:
        axes = figure.subplots()
        for what, label, colour in (
            ("faiss_p50_ms", "faiss BinaryFlat, 1 thread", BOUND),
            ("flat_p50_ms", "product, BIN_FLAT", DAFH),
            ("ivf_p50_ms", "product, BIN_IVF_FLAT", SERVER),
        ):
            axes.loglog(sizes, [one[what] for one in growth], "o-", color=colour, label=label)
            if sizes[-1] < LEAST:
                continue
            offset, slope = _line(growth, what)
            axes.loglog(beyond, np.maximum(offset, 0) + slope * beyond, ":", color=colour)
        dotted = " (dotted: extrapolated)" if sizes[-1] >= LEAST else ""
        axes.set(xlabel=f"cases{dotted}", ylabel="p50 of a query, ms")
        axes.grid(visible=True, which="both", alpha=0.2)
        axes.legend(frameon=False)
