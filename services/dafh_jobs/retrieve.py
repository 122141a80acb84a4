"""``dafh retrieve``: ask a gateway for the cases most similar to a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToDict
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dafh.client import Client
from dafh.imaging.sniff import Kind, sniff
from dafh.settings import DataSettings, DecodeSettings, load
from dafh.stack import read_stack
from dafh.v1 import retrieval_service_pb2


def retrieve(
    file: Annotated[
        Path, typer.Argument(help="A DICOM, PNG or JPEG file.", exists=True, dir_okay=False)
    ],
    server: Annotated[
        str, typer.Option(help="host:port of a gateway; without it, the running stack's.")
    ] = "",
    data_dir: Annotated[
        Path | None, typer.Option(help="Data directory of the running stack.")
    ] = None,
    top_k: Annotated[int, typer.Option(help="Length of the answer.", min=1)] = 10,
    include_same_patient: Annotated[
        bool, typer.Option(help="Let the file's own instance, study and patient answer.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Find the indexed cases most similar to FILE."""
    address = server or read_stack(data_dir or load(DataSettings).data_dir).gateway.address
    dicom, picture = as_source(file.read_bytes())
    with Client(address) as client:
        answer = client.retrieve(
            dicom=dicom, picture=picture, top_k=top_k, include_same_patient=include_same_patient
        )
    if as_json:
        typer.echo(json.dumps({"file": str(file), **MessageToDict(answer)}))
    else:
        Console().print(answer_table(answer))


def answer_table(answer: retrieval_service_pb2.RetrieveResponse) -> Table:
    """Draw an answer as a table, and what the network takes the query for above it."""
    facts = answer.query
    known = ""
    if facts.HasField("in_distribution"):
        known = (
            ", a known kind of image" if facts.in_distribution else ", [red]unlike its training[/]"
        )
    table = Table(
        title=f"query looks like {escape(facts.predicted_class.label)} "
        f"({facts.predicted_class.probability:.0%}){known}; model {facts.model_version}, "
        f"{facts.bits} bits",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
    )
    for column in ("#", "case", "distance", "relevant", "modality", "body part", "label"):
        table.add_column(column, no_wrap=True)
    for rank, hit in enumerate(answer.hits, start=1):
        relevant = f"{hit.probability:.0%}" if hit.HasField("probability") else "-"
        table.add_row(
            str(rank), hit.case.name.rpartition("/")[2][:8], str(hit.distance), relevant,
            *map(escape, (hit.case.modality, hit.case.body_part, hit.case.label)),
        )  # fmt: skip
    return table


def as_source(data: bytes) -> tuple[bytes | None, bytes | None]:
    """Return a file's bytes as (dicom, picture), the one that it is not being ``None``."""
    kind = sniff(data, load(DecodeSettings).policy)
    return (data, None) if kind is Kind.DICOM else (None, data)
