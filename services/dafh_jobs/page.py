"""The page of a report: one file, no script, nothing that is fetched from anywhere."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from html import escape
from typing import Any

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; color: #1f2933 }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } th, td { padding: .2rem .8rem .2rem 0; text-align: right }
th:first-child, td:first-child { text-align: left } tr { border-bottom: 1px solid #e4e7eb }
.plots { display: flex; flex-wrap: wrap; gap: 1rem } svg { max-width: 100%; height: auto }
.quiet { color: #7b8794 }
"""
COLOUR, QUIET = "#2b7de9", "#9aa5b1"


def draw_page(facts: Mapping[str, Any]) -> str:
    """Return the page of what `dafh_jobs.report` counted."""
    done = "complete" if facts["complete"] else "not complete: run the job again, it goes on"
    plots = [
        _bars("Files by outcome", facts["file_outcomes"]),
        _bars("Files left out, by reason", facts["skipped"]),
        _bars("Images by modality", _of(facts["modalities"], "images")),
        _bars("Busy share of each stage", facts.get("stages", {}), limit=1.0),
    ]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Report of an index job</title>"
        f"<style>{STYLE}</style><h1>Archive {escape(facts['archive'])}</h1>"
        f"<p>Job {done}. Model version {facts['model_version']} "
        f"<span class=quiet>({facts['model_hash'][:12]})</span>, shard {facts['shard']}.</p>"
        f"{_table(('', 'what'), _summary(facts))}"
        f"<div class=plots>{''.join(plots)}</div>"
        f"<h2>By modality</h2>{_table(_MODALITY, _modalities(facts))}"
        f"<h2>Images, by what the index said</h2>"
        f"{_table(('outcome', 'images'), facts['outcomes'].items())}"
        f"<h2>Left out, by reason</h2>{_table(('reason', 'files'), facts['skipped'].items())}"
        "<p class=quiet>Files are named in outcomes.parquet, by the SHA-256 of their bytes.</p>"
        "</html>\n"
    )


_MODALITY = ("modality", "files", "images", "left out", "MB")


def _summary(facts: Mapping[str, Any]) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("files", facts["files"]),
        ("images indexed", facts["indexed"]),
        ("megabytes", round(facts["bytes"] / 1e6, 1)),
        ("seconds", facts["seconds"]),
        ("images per second, of the last run", facts["images_per_second"]),
    ]
    if facts.get("labels_of_no_file"):
        rows.append(("labels of no file", facts["labels_of_no_file"]))
    if facts.get("cases") is not None:
        rows.append(("cases in the archive, of all sources", facts["cases"]))
    return rows + [(f"files noticed: {name}", count) for name, count in facts["noticed"].items()]


def _modalities(facts: Mapping[str, Any]) -> list[tuple[object, ...]]:
    return [
        (
            name,
            counts.get("files", 0),
            counts.get("images", 0),
            counts.get("left_out", 0),
            round(counts.get("bytes", 0) / 1e6, 1),
        )
        for name, counts in facts["modalities"].items()
    ]


def _of(modalities: Mapping[str, Mapping[str, int]], what: str) -> dict[str, int]:
    return {name: counts[what] for name, counts in modalities.items() if counts.get(what)}


def _table(head: tuple[str, ...], rows: Any) -> str:  # noqa: ANN401 - rows of anything that prints
    cells = "".join(f"<th>{escape(word)}</th>" for word in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(value))}</td>" for value in row) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{cells}</tr>{body}</table>"


def _bars(title: str, values: Mapping[str, float], limit: float | None = None) -> str:
    """Return horizontal bars as SVG, "" where there is nothing to show."""
    if not values:
        return ""
    # Takes a second to import: only at the end of a job.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names = list(values)[::-1]
    figure = Figure(figsize=(5.2, 0.9 + 0.32 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(names, [values[name] for name in names], color=COLOUR)
    axes.bar_label(bars, fmt="{:.4g}", padding=3, fontsize=8, color=QUIET)
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.set_xlim(0, limit or 1.15 * max(1, *values.values()))
    stream = io.StringIO()
    # Text stays text, and equal reports are equal bytes.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "dafh"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return re.sub(r"^.*?(?=<svg)", "", stream.getvalue(), flags=re.DOTALL)
