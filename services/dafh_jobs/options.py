"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Tenant = Annotated[str, typer.Option(help="Whose archive.")]
DataDir = Annotated[Path | None, typer.Option(help="Data directory of the running stack.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
CodingOption = Annotated[
    str,
    typer.Option(
        "--coding", help="Key of the coding, as `dafh archive show` tells; the live one if not."
    ),
]
