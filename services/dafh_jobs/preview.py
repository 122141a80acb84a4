"""What a selection would take of a source, before anything is decoded."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

import typer
from rich.console import Console
from rich.table import Table

from dafh.errors import InvalidInput
from dafh.imaging.outline import outline
from dafh_jobs.job import Settings, look_through
from dafh_jobs.report import UNKNOWN
from dafh_jobs.selection import Selection, Survey
from dafh_jobs.shard import Shard
from dafh_jobs.sources import entries

TAKEN, LEFT, REFUSED, UNREADABLE = "taken", "left", "refused", "unreadable"


def preview(sources: Sequence[str], selection: Selection, shard: Shard, *, as_json: bool) -> None:
    """Print how many files of each modality each rule would take and leave."""
    counts = count(sources, selection, shard)
    rows = [
        {"rule": rule, "modality": modality, "verdict": verdict, "files": files}
        for (rule, modality, verdict), files in sorted(counts.items())
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table("rule", "modality", "verdict", "files")
    for row in rows:
        table.add_row(str(row["rule"] or "none"), *(str(row[name]) for name in list(row)[1:]))
    Console().print(table)


def count(
    sources: Sequence[str], selection: Selection, shard: Shard
) -> Counter[tuple[int, str, str]]:
    """Return (rule, modality, verdict) -> files; no series is decoded, so some may fail later."""
    settings = Settings()
    limits, policy = settings.decode.limits, settings.decode.policy
    counts: Counter[tuple[int, str, str]] = Counter()
    with ExitStack() as stack:
        survey = None
        if selection.needs_survey:
            survey = stack.enter_context(Survey())
            look_through(entries(sources, limits), survey, settings, threading.Event())
        for entry in entries(sources, limits):
            try:
                content = entry.read(limits.request_bytes + 1)
            except OSError:
                counts[0, UNKNOWN, UNREADABLE] += 1
                continue
            try:
                if content.fault is not None:
                    raise content.fault
                looked = outline(content.beginning, policy)
            except InvalidInput as error:
                if shard.has("", content.sha256):
                    counts[0, UNKNOWN, f"{REFUSED}: {error.reason.value}"] += 1
                continue
            if not shard.has(looked.sop_instance_uid if looked else "", content.sha256):
                continue
            choice = selection.choose(looked, survey)
            modality = (looked.modality if looked else "") or UNKNOWN
            counts[choice.rule, modality, LEFT if choice.frames is None else TAKEN] += 1
    return counts
