"""``python -m fuzz``: coverage-guided fuzzing of the imaging package; exit code 1 with a finding.

libFuzzer (through atheris) runs in a process of its own, because a finding may end it. It starts
again until the time is up. Then everything that it thought worth keeping is decoded again, round
after round, in one process that must not grow.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from fuzz.seeds import MAX_LENGTH, SEEDS, write_seeds

#: Seconds that one input may take.
SLOWEST = 2
#: Memory beyond which an input is a finding, MiB.
RSS_LIMIT = 2048
#: Rounds over the corpus, and MiB that the process may grow from the second round to the last.
ROUNDS = 5
GROWTH = 4
#: Findings after which it is not worth going on.
ENOUGH = 10


@dataclass(slots=True)
class Report:
    """What a run found."""

    target: str
    seconds: float = 0.0
    inputs: int = 0
    seeds: int = 0
    corpus: int = 0
    coverage: int = 0
    slowest_seconds: float = 0.0
    peak_rss_mib: int = 0
    growth_mib: float = 0.0
    findings: list[str] = field(default_factory=list)


def fuzz(target: str, duration: float, out: Path) -> Report:
    """Fuzz one target for so many seconds."""
    corpus, findings = out / target / "corpus", out / target / "findings"
    findings.mkdir(parents=True, exist_ok=True)
    known = set(findings.iterdir())
    report, started = Report(target, seeds=write_seeds(target, corpus)), time.monotonic()
    while (left := duration - (time.monotonic() - started)) > 1:
        run = subprocess.run(
            [
                sys.executable, "-m", "fuzz.libfuzzer", target, str(corpus),
                f"-max_total_time={left:.0f}", f"-timeout={SLOWEST}", f"-max_len={MAX_LENGTH}",
                f"-rss_limit_mb={RSS_LIMIT}", f"-artifact_prefix={findings}/",
                "-print_final_stats=1",
            ],
            stderr=subprocess.PIPE, text=True, errors="replace", check=False,
            timeout=duration + 120,
        )  # fmt: skip
        _add(report, run.stderr)
        report.findings = sorted(file.name for file in set(findings.iterdir()) - known)
        if run.returncode:
            sys.stderr.write(run.stderr[-4000:])
        if len(report.findings) >= ENOUGH or (run.returncode and not report.findings):
            break
    report.seconds = round(time.monotonic() - started, 1)
    report.corpus = len(list(corpus.iterdir()))
    _replay(report, corpus)
    return report


def _add(report: Report, log: str) -> None:
    """Add libFuzzer's own figures."""

    def largest(pattern: str) -> int:
        return max((int(found) for found in re.findall(pattern, log)), default=0)

    report.inputs += largest(r"number_of_executed_units: (\d+)")
    report.slowest_seconds = max(report.slowest_seconds, largest(r"slowest_unit_time_sec:\s+(\d+)"))
    report.coverage = max(report.coverage, largest(r"cov: (\d+)"))
    report.peak_rss_mib = max(report.peak_rss_mib, largest(r"peak_rss_mb:\s+(\d+)"))


def _replay(report: Report, corpus: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "fuzz.replay", report.target, str(corpus), str(ROUNDS)],
        stdout=subprocess.PIPE,
        check=False,
    )
    if run.returncode:
        report.findings.append(f"the replay ended with {run.returncode}")
        return
    figures = json.loads(run.stdout)
    report.growth_mib = figures["growth_mib"]
    report.slowest_seconds = max(report.slowest_seconds, figures["slowest_seconds"])
    if report.growth_mib > GROWTH:
        report.findings.append(f"memory grew by {report.growth_mib} MiB over {ROUNDS} rounds")
    if report.slowest_seconds > SLOWEST:
        report.findings.append(f"an input took {report.slowest_seconds} s: {figures['slowest']}")


def main() -> None:
    """Fuzz as the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--duration", type=float, default=600, help="seconds")
    parser.add_argument(
        "--target", action="append", choices=SEEDS, help="side by side; decode, codecs by default"
    )
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"), help="corpus and findings")
    arguments = parser.parse_args()
    # `reader` is a part of `decode`.
    targets = arguments.target or ["decode", "codecs"]
    with ThreadPoolExecutor(len(targets)) as threads:
        run = partial(fuzz, duration=arguments.duration, out=arguments.out)
        reports = list(threads.map(run, targets))
    for report in reports:
        sys.stdout.write(json.dumps(asdict(report), indent=2) + "\n")
    sys.exit(any(report.findings for report in reports))


if __name__ == "__main__":
    main()
