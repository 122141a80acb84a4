"""``python -m mutants``: a seeded sample of mutants of each target; exit code 1 below the bar.

Outcomes are kept in ``out/mutants.json``; what is there, of the same code and the same tests, is
not tried again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import time
from pathlib import Path

from mutants.mutations import Mutant, changes
from mutants.targets import TARGETS, Target
from mutants.trial import import_shared, passes

CHECKOUT = Path(__file__).resolve().parents[1]
KEPT = CHECKOUT / "out" / "mutants.json"
SEED = 20240711
#: Mutants of a target that are tried; a small target has no more.
SAMPLE = 40
#: Share of them that the tests must notice.
BAR = 0.85


def sample(target: Target) -> list[Mutant]:
    """Return the mutants of a target that are tried, the same for the same code."""
    every = [
        change
        for module in target.modules
        for change in changes(module, CHECKOUT / (module.replace(".", "/") + ".py"))
    ]
    chosen = random.Random(SEED).sample(every, min(SAMPLE, len(every)))  # noqa: S311 - no secret.
    sys.stdout.write(f"{target.name}: {len(chosen)} of {len(every)} mutants\n")
    return [change.made() for change in chosen]


def key(mutant: Mutant, tests: str) -> str:
    """Return what an outcome is kept under: the changed code, and the tests as they are."""
    return hashlib.sha256(f"{mutant.module}\0{mutant.source}\0{tests}".encode()).hexdigest()


def tried(target: Target, kept: dict[str, bool], until: float) -> list[tuple[Mutant, bool]] | None:
    """Try a target's sample; return who survived, or nothing when the time is up."""
    tests = "".join((CHECKOUT / path).read_text() for path in target.tests)
    outcomes = []
    for mutant in sample(target):
        name = key(mutant, tests)
        if name not in kept:
            if time.monotonic() > until:
                return None
            kept[name] = passes(mutant, target.tests)
            KEPT.parent.mkdir(exist_ok=True)
            KEPT.write_text(json.dumps(kept, indent=0))
            sys.stdout.write(f"  {'SURVIVED' if kept[name] else 'noticed'} {mutant}\n")
            sys.stdout.flush()
        outcomes.append((mutant, kept[name]))
    return outcomes


def main() -> int:
    """Try all targets; print a table and the survivors."""
    parser = argparse.ArgumentParser(prog="python -m mutants", description=__doc__)
    names = [target.name for target in TARGETS]
    parser.add_argument("targets", nargs="*", help=f"Of {', '.join(names)}; all by default.")
    parser.add_argument("--minutes", type=float, default=1e6, help="Then stop; to go on later.")
    options = parser.parse_args()
    if not set(options.targets) <= set(names):
        parser.error(f"there are {', '.join(names)}")
    until = time.monotonic() + 60 * options.minutes
    kept: dict[str, bool] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    import_shared()
    failed = False
    lines, survivors = ["| target | tried | noticed | share |", "|---|---|---|---|"], []
    for target in TARGETS:
        if options.targets and target.name not in options.targets:
            continue
        if not passes(None, target.tests):
            sys.stdout.write(f"{target.name}: its tests fail without any mutant\n")
            return 1
        outcomes = tried(target, kept, until)
        if outcomes is None:
            sys.stdout.write("The time is up; the same command goes on.\n")
            return 75
        alive = [mutant for mutant, survived in outcomes if survived]
        noticed = len(outcomes) - len(alive)
        share = noticed / len(outcomes)
        lines.append(f"| {target.name} | {len(outcomes)} | {noticed} | {share:.0%} |")
        survivors += [f"- {mutant}" for mutant in alive]
        failed |= share < BAR
    sys.stdout.write("\n".join([*lines, "", *survivors]) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
