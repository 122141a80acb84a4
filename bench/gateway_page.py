"""The page on what gateway, Triton and Milvus add, from what `bench.gateway` kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench.index_page import table

Found = dict[str, Any]
#: What codes are, by their kind.
CODES = {"real": "made from those of the corpus", "uniform": "independent fair bits"}


def page(found: Found) -> str:
    """Return the page."""
    about = found["environment"]
    settings = ", ".join(f"`{name}={value}`" for name, value in found["settings"].items())
    stages = ", ".join(f"{name} {ms}" for name, ms in found["stages_ms"].items())
    return f"""# What gateway, Triton and Milvus add to a query

Written by `python -m bench.report` from [gateway.json](gateway.json), which
`python -m bench.gateway` measured on {about["date"]}: {about["machine"]},
processors {about["busy"]:.0%} busy before it began; {about["versions"]}.
Settings: {settings or "as shipped"}.

The embedded stack as `dafh up` starts it, {found["cases"]:,} cases of 64 bits
({CODES[found["codes"]]}), everything and the client on the same processors; bound and served by
turns. The bound is the same query in one process: decode, ONNX Runtime on one thread, faiss exact
search. Its answers per second are of one
process a core, the gateway's of eight clients without pause. The client's processor time is not
counted; no two queries are equal.

{_queries(found["queries"])}

Where processor time goes, ms a query:

{_processors(found["queries"])}

Mean of the stages of the unloaded CT, ms, as the gateway logs them: {stages}.

## More clients

With the CT; clients never pause, and try again when they are told to:

{_clients(found["concurrency"])}

## Against the aims

{table(("aim, for the queries in the order above", "measured", ""), *_told(aims(found)))}

{_floor(found)}

The flood of the aims on overload is {found["overload"]["sent_per_s"]:.0f} queries a second, five
times what the small picture reached, from a process on the same processors whose own work is in
the figures.
"""


def _floor(found: Found) -> str:
    """Say what would be left to a gateway that costs little beside its calls."""
    query, parts = found["queries"]["CT"], found["parts_ms"]
    others = {name: ms for name, ms in query["served"]["cpu_ms_of"].items() if name != "gateway"}
    alone, bound = sum(others.values()), query["bound"]["cpu_ms"]
    added = (parts["echo"], parts["infer"] - parts["onnx"], parts["milvus"] - parts["faiss"])
    calls, who = " + ".join(f"{ms:.1f}" for ms in added), " and ".join(others)
    own = query["served"]["cpu_ms_of"]["gateway"]
    return f"""What the others take of the aims, for the CT: {who} alone take {alone:.1f} ms
of processor, {alone / bound:.2f} x all that the bound takes (the aim is 1.25 x), so that
processors which did nothing else would answer about {bound / alone:.2f} x as often (0.8 x). An
echo through gRPC, Triton around ONNX Runtime and Milvus around faiss, the calls themselves
included, add {calls} = {sum(added):.1f} ms to a query (4 ms). The gateway itself, decoding
included, takes {own:.1f} ms of processor."""


def _queries(queries: Found) -> str:
    rows: list[tuple[object, ...]] = []
    for name, one in queries.items():
        for who in ("bound", "served"):
            told = one[who]
            rows.append(
                (
                    name if who == "bound" else "", f"{one['bytes']:,}" if who == "bound" else "",
                    who, told["p50"], told["p95"], told["p99"], told["cpu_ms"], told["per_s"],
                )
            )  # fmt: skip
    head = ("query", "bytes", "", "p50, ms", "p95", "p99", "processor, ms a query", "answers/s")
    return table(head, *rows)


def _processors(queries: Found) -> str:
    names = list(next(iter(queries.values()))["served"]["cpu_ms_of"])
    rows = [
        (name, *(one["served"]["cpu_ms_of"][part] for part in names))
        for name, one in queries.items()
    ]
    return table(("query", *(f"{name}" for name in names)), *rows)


def _clients(loads: Sequence[Found]) -> str:
    rows = [
        (
            load["clients"], load["per_s"], load.get("p50", ""), load.get("p95", ""),
            load.get("p99", ""), told(load["outcomes"]),
        )
        for load in loads
    ]  # fmt: skip
    return table(("clients", "answers/s", "p50, ms", "p95", "p99", "outcomes"), *rows)


def told(outcomes: dict[str, int]) -> str:
    """Return how often each outcome was."""
    return ", ".join(f"{count} {name}" for name, count in outcomes.items())


def aims(found: Found) -> list[tuple[str, str, bool]]:
    """Return each aim for the stack, what was measured, and whether it is met."""
    queries, flood = found["queries"], found["overload"]
    small = queries["128 x 128"]["served"]

    def each(measure: Callable[[Found, Found], float]) -> list[float]:
        return [measure(one["served"], one["bound"]) for one in queries.values()]

    work = each(lambda served, bound: served["cpu_ms"] / bound["cpu_ms"])
    added = each(lambda served, bound: served["p50"] - bound["p50"])
    rates = each(lambda served, bound: served["per_s"] / bound["per_s"])
    goodput = flood["goodput_per_s"] / small["per_s"]
    late = flood.get("p99", float("inf")) / small["p99"]
    return [
        ("processor time at most 1.25 x the bound's", _list(work, "{:.2f} x"), max(work) <= 1.25),
        ("p50 at most the bound's + 4 ms", _list(added, "{:+.1f} ms"), max(added) <= 4),
        ("answers/s at least 0.8 x the bound's", _list(rates, "{:.2f} x"), min(rates) >= 0.8),
        ("at 5 x capacity, at least 0.85 of the peak answered", f"{goodput:.2f}", goodput >= 0.85),
        ("there, p99 of what was let in at most 3 x unloaded", f"{late:.1f} x", late <= 3),
    ]


def _told(aims: Sequence[tuple[str, str, bool]]) -> Iterator[tuple[str, str, str]]:
    return ((aim, measured, "met" if met else "**not met**") for aim, measured, met in aims)


def _list(values: Sequence[float], form: str) -> str:
    return ", ".join(form.format(value) for value in values)
