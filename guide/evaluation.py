"""``python -m guide.evaluation [FIGURES…]`` keeps what pages tell of evaluations, by model version.

FIGURES are what ``dafh evaluate --json`` wrote; without any, what is kept stays. The model card's
table of classes is made of it. `tests/guide/test_evaluation.py` holds the pages against what is
kept.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dafh.codes import BITS
from dafh.settings import CHECKOUT

KEPT = CHECKOUT / "docs" / "performance" / "evaluation.json"
CARD = CHECKOUT / "docs" / "model-card.md"
#: The version that the card is of.
SHIPPED = "2"
#: What stands around the table in the card.
BEGIN = "<!-- Made by `python -m guide.evaluation`; change what it is made of instead. -->\n"
END = "<!-- Made until here. -->\n"
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


def class_table(figures: Any) -> str:  # noqa: ANN401 - JSON
    """Return MAP@10 of each class as Markdown; classes of few query groups have an asterisk."""
    rankings = [*(str(bits) for bits in BITS), "pixels"]
    lines = [
        f"| class | queries | {' | '.join(f'{bits} bits' for bits in BITS)} | pixels |",
        "|---|---|" + "---|" * len(rankings),
    ]
    for name, queries in figures["queries_by_class"].items():
        mark = r" \*" if name in figures["few_groups"] else ""
        values = (figures[ranking]["map_at_10"]["per_class"][name] for ranking in rankings)
        lines.append(f"| {name}{mark} | {queries} | {' | '.join(f'{v:.3f}' for v in values)} |")
    return "\n".join(lines) + "\n"


def with_table(card: str, table: str) -> str:
    """Return the card with another table in the place of its own."""
    before, _, rest = card.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(prog="python -m guide.evaluation", description=__doc__)
    parser.add_argument("figures", type=Path, nargs="*")
    options = parser.parse_args()
    if options.figures:
        read = [json.loads(path.read_text()) for path in options.figures]
        kept = {str(one["model"]["version"]): slim(one) for one in read}
        KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    table = class_table(json.loads(KEPT.read_text())[SHIPPED])
    CARD.write_text(with_table(CARD.read_text(), table))


if __name__ == "__main__":
    main()
