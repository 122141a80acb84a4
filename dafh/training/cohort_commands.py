"""``dafh data``: labelled images to train and evaluate on."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dafh.training.cohort import (
    MANIFEST,
    SPLITS,
    Series,
    choose,
    download_with,
    fetch,
    patients,
    read_cohort,
    write_series,
)

SOME_MISSING = 1
app = typer.Typer(help="Get labelled images to train and evaluate on.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Get labelled images to train and evaluate on."""


@app.command("idc")
def idc(
    cohort: Annotated[Path, typer.Option(help="TOML cohort file.", exists=True)],
    out: Annotated[Path, typer.Option(help="Folder for images, series.csv and manifest.csv.")],
    choose_only: Annotated[
        bool, typer.Option("--choose-only", help="Write series.csv; fetch nothing, offline.")
    ] = False,
) -> None:
    """Choose series of the Imaging Data Commons (TCIA) by cancer type and modality; fetch them.

    The manifest has the columns that `dafh train` and `dafh evaluate` read. Patients never cross
    splits. Exits with 1 where series did not come: the same command tries them again.
    """
    # The index takes seconds to load: only for those who choose.
    from idc_index.index import IDCClient

    wanted = read_cohort(cohort)
    index = IDCClient()  # type: ignore[no-untyped-call]  # its package gives it no types
    series = choose(wanted, index)
    console = Console(stderr=True)
    show(series, console)
    console.print(f"{len(series)} series: {write_series(series, out)}", soft_wrap=True)
    if choose_only:
        return
    # No markup: what a server says may hold brackets.
    report = partial(console.print, soft_wrap=True, markup=False)
    # The index refuses to load without the program.
    bring = partial(download_with, str(index.s5cmdPath))
    missing = fetch(series, wanted, bring, out, report)
    console.print(f"manifest: {out / MANIFEST}", soft_wrap=True)
    if missing:
        console.print(
            f"{len(missing)} series did not come: run the same command again, it tries only them.",
            soft_wrap=True,
        )
        raise typer.Exit(SOME_MISSING)


def show(series: list[Series], console: Console) -> None:
    """Print how many patients each class has in each split; warn where there are none."""
    splits = [split for split, _ in SPLITS]
    sizes: Counter[str] = Counter()
    for one in series:
        sizes[one.class_name] += round(one.megabytes)
    counts = patients(series)
    table = Table("class", "patients", *splits, "GB")
    for name, count in counts.items():
        row = (count.total(), *(count[split] for split in splits))
        table.add_row(name, *map(str, row), f"{sizes[name] / 1000:.1f}")
    console.print(table)
    for split in splits:
        without = ", ".join(name for name, count in counts.items() if not count[split])
        if without:
            console.print(f"warning: no {split} patients: {without}", soft_wrap=True)
