"""What a job adds to its work: ``python -m bench.jobs`` writes docs/performance/jobs.md and .json.

The bound is decoding and inference alone: the same decoders, the same Triton, the same files in the
same process, without journal, index or report. Both go by turns in one run, on one machine; the
ratio says more than the rates. Memory is that of `dafh index` as a process of its own, as the
number of files grows tenfold and again. With ``--work FOLDER`` a run that was cut off keeps the
figures and phantoms that it has, and the same command goes on; remove the folder to begin anew.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import islice
from operator import itemgetter
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from bench.environment import busy, environment
from bench.stack import DAFH, run, running
from dafh.deadline import Deadline
from dafh.encoding.triton import MAX_BATCH
from dafh.imaging.decode import REPRESENTATIVE
from dafh.imaging.image import PatientKeyer
from dafh.imaging.pool import DecoderPool
from dafh_jobs import index
from dafh_jobs.deployment import Servers, connected
from dafh_jobs.job import Settings, Task
from dafh_jobs.stopping import Stopping

OUT = Path(__file__).resolve().parent.parent / "docs" / "performance"
#: Files of the comparison, how often it is made, and files of the measurement of memory.
FILES, TURNS, SIZES = 5_000, 3, (1_000, 4_000)
FULL = (10_000, 100_000)
#: Seconds between looks at a process's memory.
GLANCE = 0.2


def main(words: list[str] | None = None) -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.jobs", description=__doc__)
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--full", action="store_true", help=f"memory up to {FULL[-1]} files")
    parser.add_argument("--work", type=Path, help="folder for what a next run goes on with")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the page and the JSON")
    options = parser.parse_args(words)
    about = environment()
    sizes = (*options.sizes, *FULL) if options.full else options.sizes
    with ExitStack() as end:
        scratch = Path(end.enter_context(tempfile.TemporaryDirectory(prefix="dafh-bench-")))
        work = options.work or scratch
        work.mkdir(parents=True, exist_ok=True)
        end.enter_context(running(scratch))

        def known(name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
            """Return a figure, of a former run where it got that far."""
            kept = work / f"{name}.json"
            if not kept.exists():
                measured = {"date": about["date"], "busy": busy()} | measure()
                sys.stderr.write(f"{name}: {json.dumps(measured)}\n")
                kept.write_text(json.dumps(measured))
            figure: dict[str, Any] = json.loads(kept.read_text())
            return figure

        found: dict[str, Any] = {
            "environment": about,
            "rate": known(
                f"rate-{options.files}", lambda: rates(scratch, phantoms(work, options.files))
            ),
            "memory": [
                known(f"memory-{size}", partial(memory, scratch, work, size)) for size in sizes
            ],
        }
    # Of large sizes the last measurement stays: they take a quarter of an hour.
    found["memory"] += [one for one in measured_before(options.out) if one["files"] not in sizes]
    found["memory"].sort(key=itemgetter("files"))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "jobs.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.out / "jobs.md").write_text(page(found))
    sys.stdout.write(page(found))


def measured_before(folder: Path) -> list[dict[str, Any]]:
    """Return what was measured of memory before."""
    file = folder / "jobs.json"
    return list(json.loads(file.read_text())["memory"]) if file.exists() else []


def phantoms(work: Path, count: int) -> Path:
    """Return a folder of phantoms."""
    folder, made = work / f"phantoms-{count}", work / f"phantoms-{count}.part"
    if not folder.exists():
        shutil.rmtree(made, ignore_errors=True)
        run("phantom", str(made), "--instances", str(count))
        (made / "manifest.csv").unlink()
        made.rename(folder)
    return folder


def rates(work: Path, source: Path) -> dict[str, Any]:
    """Return files per second of the bound and of the job, by turns."""
    files = sorted(source.iterdir())
    count = len(files)
    alone, jobs, stages = [], [], {}
    with connected("default", work) as servers:
        bound(servers, files[:200])
        for turn in range(TURNS):
            alone.append(count / bound(servers, files))
            facts = job(servers, source, f"turn{turn}")
            jobs.append(facts["files_per_second"])
            stages = facts["stages"]
    return {
        "files": count,
        "alone": [round(one, 1) for one in alone],
        "job": [round(one, 1) for one in jobs],
        "ratio": round(median(jobs) / median(alone), 3),
        "stages": stages,
    }


def bound(servers: Servers, files: Sequence[Path]) -> float:
    """Return the seconds that decoding and inference alone take."""
    settings = Settings()
    workers, abreast = settings.decode.decode_workers, settings.job.batches
    keyer = PatientKeyer(servers.deployment.key, "default")
    described = servers.encoders.describe(servers.deployment.model_version)
    coding = servers.coding("default", "bound")
    encoder = servers.encoders.of(coding, Deadline.after(60))
    slots = threading.Semaphore(abreast)

    def encode(images: NDArray[np.uint8]) -> None:
        try:
            encoder.encode(images, Deadline.after(60))
        finally:
            slots.release()

    with (
        DecoderPool(workers=workers, keyer=keyer, policy=settings.decode.policy) as decoders,
        ThreadPoolExecutor(workers + 2) as readers,
        ThreadPoolExecutor(abreast) as senders,
    ):
        decode = partial(_decoded, decoders, described.side)
        began = time.monotonic()
        sent = []
        images = readers.map(decode, files)
        while some := list(islice(images, MAX_BATCH)):
            slots.acquire()
            sent.append(senders.submit(encode, np.stack(some)))
        for one in sent:
            one.result()
        return time.monotonic() - began


def _decoded(decoders: DecoderPool, side: int, file: Path) -> NDArray[np.uint8]:
    image = decoders.decode(
        file.read_bytes(), side=side, frame=REPRESENTATIVE, deadline=Deadline.never()
    )
    return image.pixels


def job(servers: Servers, source: Path, archive: str) -> dict[str, Any]:
    """Index a folder into an archive of its own; return the facts of the report."""
    task = Task("indexing", (str(source),), "default", archive)
    task = replace(task, journal=servers.deployment.data_dir / f"{archive}.journal")
    return index.run(task, servers, Stopping(), Console(quiet=True))


def memory(data_dir: Path, work: Path, count: int) -> dict[str, Any]:
    """Return the most memory that a job of so many files took, MiB, its decoders apart.

    What it took in the first fifth of its time is told too: all files lie in one folder, whose
    names are read at the beginning, and what a job gathers on its way is the rest.
    """
    source, archive = phantoms(work, count), f"memory{count}"
    words = ["index", str(source), "--archive", archive, "--data-dir", str(data_dir), "--json"]
    with subprocess.Popen([DAFH, *words], stdout=subprocess.PIPE, text=True) as process:
        seen = []
        while process.poll() is None:
            seen.append(_resident(process.pid))
            time.sleep(GLANCE)
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        facts = json.loads(process.stdout.read())
    fifth = seen[: max(1, len(seen) // 5)]
    return {
        "files": count,
        "mib": round(max(seen) / 2**20),
        "mib_in_first_fifth": round(max(fifth) / 2**20),
        "files_per_second": facts["files_per_second"],
    }


def _resident(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    found = [line.split()[1] for line in lines if line.startswith("VmRSS")]
    return int(found[0]) * 1024 if found else 0


def page(found: dict[str, Any]) -> str:
    """Return the page."""
    rate = found["rate"]
    rows = "\n".join(
        f"| {one['files']} | {one['mib_in_first_fifth']} | {one['mib']} |"
        f" {one['files_per_second']} | {one['date']} |"
        for one in found["memory"]
    )
    shares = ", ".join(f"{name} {share:.0%}" for name, share in rate["stages"].items())
    about = found["environment"]
    return f"""# What a job adds

Written by `python -m bench.jobs` on {about["date"]}: {about["machine"]};
{about["versions"]};
processors {about["busy"]:.0%} busy before it began.

{rate["files"]} phantoms, {len(rate["job"])} turns each, files per second: decoding and inference
alone {", ".join(map(str, rate["alone"]))}; the job {", ".join(map(str, rate["job"]))}. The ratio of
the medians is **{rate["ratio"]}**. Busy in the last turn: {shares}.

| files | most memory in the first fifth of the time, MiB | in all | files per second | on |
|---|---|---|---|---|
{rows}

Triton and Milvus Lite ran on the same processors. Memory is that of `dafh index` itself; each
decoder is another, bounded by `memory_bytes`. All files lie in one folder, whose names a job
reads at once, and twice: it counts while it works.
"""


if __name__ == "__main__":
    main()
