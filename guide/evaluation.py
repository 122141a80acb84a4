"""``python -m guide.evaluation FIGURES…`` keeps what pages tell of evaluations, by model version.

FIGURES are what ``dafh evaluate --json`` wrote. `tests/guide/test_evaluation.py` holds the pages
against what is kept.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dafh.settings import CHECKOUT

KEPT = CHECKOUT / "docs" / "performance" / "evaluation.json"
#: What no page tells.
LEFT_OUT = {"cancer_type", "hamming_only", "neighbours", "precision"}
#: Of a figure; pages have two or three.
DIGITS = 6


def slim(figures: Any) -> Any:  # noqa: ANN401 - JSON
    """Return figures without what no page tells, to few digits."""
    match figures:
        case dict():
            return {name: slim(one) for name, one in figures.items() if name not in LEFT_OUT}
        case list():
            return [slim(one) for one in figures]
        case float():
            return round(figures, DIGITS)
        case _:
            return figures


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(prog="python -m guide.evaluation", description=__doc__)
    parser.add_argument("figures", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=KEPT)
    options = parser.parse_args()
    read = [json.loads(path.read_text()) for path in options.figures]
    kept = {str(one["model"]["version"]): slim(one) for one in read}
    options.out.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
