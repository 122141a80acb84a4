"""Run the comparison: ``python -m bench.rivals`` writes docs/performance/rivals.json.

Each candidate indexes the same images and is asked the same questions, on this machine and one
after the other; then its archive grows by made vectors of the same kind, and costs are measured on
a fresh start. `python -m bench.report` makes a page of it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from bench.environment import environment
from bench.gateway import OUT
from bench.rivals.measure import CANDIDATES, CLIENTS, Scale, measured
from bench.rivals.questions import questions


def main(words: list[str] | None = None) -> None:
    """Measure, keep and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.rivals", description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the JSON")
    parser.add_argument("--images", type=int, default=Scale.images, help="that are indexed")
    parser.add_argument("--cases", type=int, default=Scale.cases, help="of the grown archive")
    parser.add_argument("--queries", type=int, default=Scale.queries, help="of each latency")
    parser.add_argument("--seconds", type=float, default=Scale.seconds, help="of each throughput")
    parser.add_argument("--only", action="append", choices=CANDIDATES, default=[], help="this one")
    parser.add_argument("--no-corpus", action="store_true", help="take phantoms")
    options = parser.parse_args(words)
    scale = Scale(options.images, options.cases, options.queries, options.seconds)
    about = environment()
    made, found = questions(scale.images, corpus=not options.no_corpus), {}
    for name in options.only or CANDIDATES:
        with tempfile.TemporaryDirectory(prefix="dafh-bench-") as folder:
            found[name] = measured(CANDIDATES[name](Path(folder)), made, Path(folder), scale)
        sys.stderr.write(f"{name}: {json.dumps(found[name])}\n")
    results = {
        "environment": about,
        "images": made.source,
        "indexed": len(made.database),
        "asked": len(made.queries),
        "cases": scale.cases,
        "clients": CLIENTS,
        "candidates": found,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "rivals.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
