"""Write docs/performance.md, pictures, and the page on the gateway: ``python -m bench.report``.

From the JSON files that the other benchmarks keep in docs/performance; every figure is in one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench import gateway_page, pictures
from bench.index import SIZES
from bench.index_page import table
from bench.waterfall import Step, steps_of

DOCS = Path(__file__).resolve().parent.parent / "docs"
KEPT = DOCS / "performance"
#: Steps that are named as the largest.
LARGEST = 3

Found = dict[str, Any]


def write(kept: Path, page: Path, pages: Path) -> None:
    """Write the page, and beside `pages` its pictures and the page on the gateway."""
    found = {
        name: json.loads((kept / f"{name}.json").read_text())
        for name in ("gateway", "imaging", "jobs", "rivals", "variants")
    }
    growth = [json.loads(path.read_text()) for path in (kept / "index").glob("growth-*.json")]
    found["growth"] = sorted(growth, key=lambda one: int(one["rows"]))
    gateway = found["gateway"]
    steps = steps_of(gateway["parts_ms"])
    ct = gateway["queries"]["CT"]
    pages.mkdir(parents=True, exist_ok=True)
    pictures.waterfall(steps, pages / "waterfall.svg")
    pictures.concurrency(gateway["concurrency"], ct["bound"]["per_s"], pages / "concurrency.svg")
    pictures.memory(gateway["memory_mib"], gateway["memory_every_s"], pages / "memory.svg")
    pictures.rivals(found["rivals"]["candidates"], pages / "rivals.svg")
    pictures.variants(found["variants"]["variants"], pages / "variants.svg")
    (pages / "gateway.md").write_text(gateway_page.page(gateway))
    page.write_text(text(found, steps))


def text(found: Found, steps: Sequence[Step]) -> str:
    """Return the page."""
    gateway = found["gateway"]
    parts = [
        _head(found),
        "## Beside what one would build instead",
        _rivals(found["rivals"]),
        "## Each part beside its bound",
        _bounds(found),
        "## Where one query spends its time",
        _waterfall(gateway, steps),
        "## More clients at once",
        _concurrency(gateway),
        "## Larger archives",
        _growth(found["growth"]),
        "## Memory",
        _memory(gateway),
    ]
    return "\n\n".join(parts) + "\n"


def _head(found: Found) -> str:
    gateway, rivals = found["gateway"], found["rivals"]
    about = gateway["environment"]
    served, bound = (gateway["queries"]["CT"][who] for who in ("served", "bound"))
    ours = rivals["candidates"]["DAFH, 64 bits"]
    floats = rivals["candidates"]["floats, faiss"]
    naive = rivals["candidates"]["codes, served naively"]
    aims = gateway_page.aims(gateway)
    return f"""# How fast it is

Written by `python -m bench.report` from the JSON files in [performance/](performance/), which
`make bench` measures anew; do not edit. On {about["date"]}: {about["machine"]};
{about["versions"]}.

- A CT of {gateway["queries"]["CT"]["bytes"]:,} bytes against {gateway["cases"]:,} cases is
  answered in {served["p50"]:.1f} ms (p50; p95 {served["p95"]:.1f}), {served["per_s"]:.0f} times a
  second with eight clients. The same work in one process, without servers, takes
  {bound["p50"]:.1f} ms.
- It takes {served["cpu_ms"]:.1f} ms of CPU time, gateway, Triton and Milvus together; the one
  process takes {bound["cpu_ms"]:.1f}.
- The same network in one naive Python server answers in {naive["p50"]:.1f} ms where DAFH takes
  {ours["p50"]:.1f}, {naive["per_s"]:.0f} times a second where DAFH does {ours["per_s"]:.0f}, from
  {naive["memory_mib"]:,} MiB where DAFH has {ours["memory_mib"]:,}, and starts in
  {naive["first_answer_s"]:.0f} s instead of {ours["first_answer_s"]:.0f}: the price of isolation,
  tenants, audit, exactness and growth. Of the {len(aims)} aims for the stack
  {sum(met for _, _, met in aims)} {"is" if sum(met for _, _, met in aims) == 1 else "are"} met
  here ([table](performance/gateway.md#against-the-aims)).
- On {_images(rivals)}, codes of {ours["vector_bytes"]} bytes reach a MAP@10 of
  {ours["map_at_10"]:.3f}; float features of the same network, {floats["vector_bytes"]:,} bytes
  each, {floats["map_at_10"]:.3f}.

Servers, clients and whoever measures share the processors; there is no GPU. Before it began other
work kept the processors busy by {_busy(found)}: where that is more than a few per cent, times are
longer than they would be, most of all those of several processes. Hold ratios against each other.
More: [the whole
way](performance/gateway.md), [images](performance/imaging.md), [search](performance/index.md),
[indexing](performance/jobs.md)."""


def _busy(found: Found) -> str:
    return ", ".join(
        f"{found[name]['environment']['busy']:.0%} ({name})"
        for name in ("gateway", "rivals", "jobs")
    )


def _images(rivals: Found) -> str:
    asked = f"{rivals['asked']} questions to {rivals['indexed']:,} images"
    return f"{asked} of the corpus" if rivals["images"] == "corpus" else f"{asked}, phantoms"


def _rivals(rivals: Found) -> str:
    rows = [
        (
            name, f"{one['map_at_10']:.3f}", one["p50"], one["p95"], one["per_s"], one["cpu_ms"],
            f"{one['vector_bytes']:,}", f"{one['memory_mib']:,}", f"{one['first_answer_s']:.1f}",
            one["indexed_per_s"],
        )
        for name, one in rivals["candidates"].items()
    ]  # fmt: skip
    head = (
        "what", "MAP@10", "p50, ms", "p95", f"answers/s, {rivals['clients']} clients",
        "CPU time, ms a query", "bytes a vector", "memory, MiB", "first answer, s", "images/s",
    )  # fmt: skip
    origin = (
        "Images and questions are the database and query splits of the corpus, each picture "
        "wrapped as a DICOM object"
        if rivals["images"] == "corpus"
        else "The corpus was not there: images and questions are **phantoms**, so that MAP@10 says "
        "little"
    )
    refused = {
        name: gateway_page.told(one["outcomes"])
        for name, one in rivals["candidates"].items()
        if set(one["outcomes"]) != {"answered"}
    }
    busy = "; ".join(f"{name}: {outcomes}" for name, outcomes in refused.items())
    return f"""![Candidates side by side](performance/rivals.svg)

{table(head, *rows)}

Same machine, same images, same questions, one candidate after the other (`python -m
bench.rivals`). {origin}; MAP@10 is macro over classes, of the answers that each gave. Then the
archive grows to {rivals["cases"]:,} by made vectors of the same kind, and costs are of a fresh
start with that archive: *first answer* from the start of the process, *CPU time* and *memory* of
all processes; the client's CPU time is in it only where it asks within the same process. Questions
and archive are not those of the section below, and neither is the moment.

- **DAFH** is `dafh up`, `dafh index` and questions over gRPC, as shipped: each case with UIDs
  and pseudonym, no answer from the same patient, an audit of each call. *images/s* is the
  whole `dafh index`, its start included.
- **floats** are what the network makes before its hash heads, as unit vectors, with DAFH's own
  decoding; exact search by inner product, in the asking process (faiss) or in Milvus Lite beside
  it, without gRPC before it. Pretrained weights of an EfficientNet cannot be had where this was
  measured; features of the same network, trained on such images, are the strongest form of this
  rival.
- **codes, served naively**: the same published network in one synchronous Python gRPC handler
  with a pool of threads, `pixel_array` and a resize, ONNX Runtime as it comes, no batches, faiss
  in memory. No window, limit, tenant, patient or audit; a file that crashes a codec ends it.
- **pHash, dHash, average hash** (imagehash) of the pixels, 64 bits, faiss, in the asking process.

Bars of the picture are logarithmic, but for MAP@10 and the first answer. What a rival in the
asking process saves is the network, and the room for a client on the same processors.
{f"Answers under load: {busy}." if busy else "No candidate refused anything under load."}"""


def _bounds(found: Found) -> str:
    gateway, parts = found["gateway"], found["gateway"]["parts_ms"]
    decode, rate = found["imaging"]["against_pydicom"][0], found["jobs"]["rate"]
    rows: list[tuple[object, ...]] = [
        (what, bound, f"{parts[low]:.2f} ms", product, f"{parts[high]:.2f} ms",
         f"{parts[high] / parts[low]:.1f}", "gateway")
        for what, bound, low, product, high in (
            ("decode", "pixel_array + resize", "pixel_array", "in process", "decode"),
            ("decode", "pixel_array + resize", "pixel_array", "worker process", "worker"),
            ("inference", "ONNX Runtime", "onnx", "Triton", "infer"),
            ("inference", "ONNX Runtime", "onnx", "Triton, and which model it was", "triton"),
            ("search", "faiss", "faiss", "Milvus alone", "milvus"),
            ("search", "faiss", "faiss", "the product", "search"),
            ("a call", "gRPC echo", "echo", "a whole query", "query"),
        )
    ]  # fmt: skip
    rows += [
        (
            f"a query: {name}", "one process", f"{one['bound'][key]} {unit}", "the stack",
            f"{one['served'][key]} {unit}", f"{one['served'][key] / one['bound'][key]:.2f}",
            "gateway",
        )
        for name, one in gateway["queries"].items()
        for key, unit in (("p50", "ms"), ("cpu_ms", "ms of CPU time"), ("per_s", "answers/s"))
    ]  # fmt: skip
    rows += [
        ("decode, CPU time", "pixel_array + resize", f"{decode['theirs_ms']:.2f} ms", "in process",
         f"{decode['ours_ms']:.2f} ms", decode["ratio"], "imaging"),
        ("indexing", "decode + inference", f"{median(rate['alone'])} files/s", "`dafh index`",
         f"{median(rate['job'])} files/s", rate["ratio"], "jobs"),
    ]  # fmt: skip
    links = {"gateway": "gateway.md", "imaging": "imaging.md", "jobs": "jobs.md"}
    said = (
        "Bound and product by turns in one run. Of answers and files per second more is better: "
        "there a ratio below 1 is a loss. Of *decode* the first rows are wall time for the CT "
        "above, the last one is CPU time for one of 512 x 512 pixels."
    )
    head = ("what", "bound", "", "product", "", "ratio", "measured by")
    linked = ((*row[:-1], f"[{row[-1]}](performance/{links[str(row[-1])]})") for row in rows)
    return f"{said}\n\n{table(head, *linked)}"


def _waterfall(gateway: Found, steps: Sequence[Step]) -> str:
    parts = gateway["parts_ms"]
    bound = sum(step.ms for step in steps if step.whose == "bound")
    total = sum(step.ms for step in steps)
    ours = [step for step in steps if step.whose != "bound"]
    largest = sorted(ours, key=lambda step: -step.ms)[:LARGEST]
    why = "\n".join(
        f"{place}. **{step.name}**, {step.ms:.2f} ms: {step.why}."
        for place, step in enumerate(largest, 1)
    )
    thread = parts["small echo, as a future"] - parts["small echo"]
    excluding = parts["excluded by Milvus"] - parts["tenant"]
    return f"""![Where one query spends its time](performance/waterfall.svg)

A CT against {gateway["cases"]:,} cases, one client; each part was timed by itself and by turns,
and the last step is what is left of the whole; a step below zero is smaller than this run can tell.
{bound:.1f} of {total:.1f} ms are bounds. What is
largest of the rest, and why it stays:

{why}

What was removed:

- Milvus compared instance, study and patient of the query with every row of the archive, in every
  search: {excluding:.2f} ms here, and more with every case. They are now taken from the first list
  of candidates, and Milvus is told of them only where too few are left (`dafh/index/milvus.py`).
- Inferences, searches and what else is read from Milvus, which a caller can give up, started and
  ended a thread each, {thread:.2f} ms here (an echo as a future, beyond a blocking one). The thread
  that asked now waits itself, and what is given up is read to its end, without which gRPC would
  keep memory for it (`dafh/calls.py`)."""


def _concurrency(gateway: Found) -> str:
    first, best = gateway["concurrency"][0], max(gateway["concurrency"], key=lambda x: x["per_s"])
    return f"""![Answers per second and latency against clients](performance/concurrency.svg)

One client gets {first["per_s"]:.0f} answers a second, {best["clients"]} get {best["per_s"]:.0f}
together. Clients never pause, try again when they are told to, and run on the same processors;
who was refused in the end is in [the table](performance/gateway.md#more-clients)."""


def _growth(growth: Sequence[Found]) -> str:
    rows = [
        (
            f"{one['rows']:,}", one["faiss_p50_ms"], one["flat_p50_ms"],
            f"{one['flat_p50_ms'] / one['faiss_p50_ms']:.0f}", one["ivf_p50_ms"], one["ivf_recall"],
            one["memory"]["anonymous"] >> 20, one["memory"]["disk"] >> 20,
        )
        for one in growth
    ]  # fmt: skip
    head = (
        "cases", "faiss, ms", "BIN_FLAT, ms", "/ faiss", "BIN_IVF_FLAT, ms", "recall of it",
        "memory of Milvus, MiB", "disk, MiB",
    )  # fmt: skip
    return f"""![Growth](performance/index/growth.svg)

{table(head, *rows)}

p50 of a search of the product on a standalone Milvus, one client. {_missing(growth)}
[Search](performance/index.md) has the rest."""


def _missing(growth: Sequence[Found]) -> str:
    """Say which sizes are not measured."""
    known = {int(one["rows"]) for one in growth}
    missing = [f"{rows:,}" for rows in SIZES if rows not in known]
    how = "`make bench-full` measures larger sizes; it may be cut off and goes on."
    return f"{how} Not measured yet: {', '.join(missing)} cases." if missing else how


def _memory(gateway: Found) -> str:
    seen = gateway["memory_mib"]
    text = "; ".join(
        f"{name} {values[0]:.0f} MiB at first, {max(values):.0f} at most, {values[-1]:.0f} at last"
        for name, values in seen.items()
        if values
    )
    return f"""![Memory during the run](performance/memory.svg)

Of each server with all processes that it started, what they share counted once, while clients
became more: {text}. Milvus holds {gateway["cases"]:,} cases; Triton holds both published model
versions, twice each."""


def main(words: list[str] | None = None) -> None:
    """Write it."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("--kept", type=Path, default=KEPT, help="folder of the JSON files")
    parser.add_argument("--page", type=Path, default=DOCS / "performance.md")
    parser.add_argument("--pages", type=Path, default=KEPT, help="folder of pictures and pages")
    options = parser.parse_args(words)
    write(options.kept, options.page, options.pages)


if __name__ == "__main__":
    main()
