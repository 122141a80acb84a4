"""``dafh data``: labelled images to train and evaluate on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dafh.training.cohort import Series, choose, fetch, read_cohort, write_series

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
    splits.
    """
    # The index takes seconds to load: only for those who choose.
    from idc_index.index import IDCClient

    wanted = read_cohort(cohort)
    index = IDCClient()  # type: ignore[no-untyped-call]  # its package gives it no types
    series = choose(wanted, index)
    console = Console(stderr=True)
    table = Table("class", "series", "patients", "GB")
    sizes: Counter[str] = Counter()
    for one in series:
        sizes[one.class_name] += round(one.megabytes)
    for name, size in sizes.items():
        own = [one for one in series if one.class_name == name]
        people = len({one.group for one in own})
        table.add_row(name, str(len(own)), str(people), f"{size / 1000:.1f}")
    console.print(table)
    console.print(f"{len(series)} series: {write_series(series, out)}", soft_wrap=True)
    if choose_only:
        return

    def report(one: Series, kept: int) -> None:
        console.print(f"{one.class_name}: kept {kept} slices of {one.uid}", soft_wrap=True)

    console.print(f"manifest: {fetch(series, wanted, index, out, report)}", soft_wrap=True)
