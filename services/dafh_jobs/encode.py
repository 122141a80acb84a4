"""``dafh encode``: the codes of images, in this process or by a running gateway."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from dafh.client import Client
from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.encoding.onnx import OnnxEncoder
from dafh.errors import InvalidInput, Reason
from dafh.imaging.decode import REPRESENTATIVE
from dafh.imaging.pool import DecoderPool
from dafh.retrieval.retrieve import read
from dafh.settings import DecodeSettings, ModelSettings, load
from dafh.terminal import shown
from dafh_jobs.retrieve import as_source

REFUSED = 1


def encode(
    files: Annotated[
        list[Path], typer.Argument(help="DICOM, PNG or JPEG files.", exists=True, dir_okay=False)
    ],
    server: Annotated[
        str, typer.Option(help="host:port of a gateway; without it, encode in this process.")
    ] = "",
    model: Annotated[int | None, typer.Option(help="Model version.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a file.")] = False,
) -> None:
    """Print the hash codes of images, what the network takes them for, and how strange they are.

    Exit code 1 where a file was refused; the others are encoded all the same.
    """
    if server and model is not None:
        raise InvalidInput(
            Reason.ARGUMENT_INVALID, "--model chooses for this process; a server has its own."
        )
    results = []
    with _by_server(server) if server else _in_process(model) as encode_one:
        for file in files:
            try:
                result: dict[str, Any] = {"file": str(file), **encode_one(file.read_bytes())}
            except InvalidInput as error:
                result = {"file": str(file), "reason": error.reason.value, "message": str(error)}
            if as_json:
                typer.echo(json.dumps(result))
            results.append(result)
    if not as_json:
        _show(results)
    if any("reason" in result for result in results):
        raise typer.Exit(REFUSED)


@contextmanager
def _in_process(version: int | None) -> Iterator[Callable[[bytes], dict[str, Any]]]:
    settings, decode = load(ModelSettings), load(DecodeSettings)
    encoder = OnnxEncoder(settings.model_repository, version or settings.model_version)
    side = encoder.model.side

    def encode_one(data: bytes) -> dict[str, Any]:
        image = decoder.decode(
            data, side=side, frame=REPRESENTATIVE, content_hash=False, deadline=Deadline.never()
        )
        encoded = encoder.encode(image.pixels[None], Deadline.never())
        reading = read(image, encoded, 0, encoder.model.bits[0], encoder.model)
        return {
            "codes": {str(bits): encoded.code(0, bits).hex() for bits in encoder.model.bits},
            "predicted_class": reading.predicted_class,
            "class_probability": reading.class_probability,
            "in_distribution": reading.in_distribution,
            "ood_score": reading.ood_score,
        }

    with DecoderPool(workers=1, policy=decode.policy) as decoder:
        yield encode_one


@contextmanager
def _by_server(address: str) -> Iterator[Callable[[bytes], dict[str, Any]]]:
    def encode_one(data: bytes) -> dict[str, Any]:
        dicom, picture = as_source(data)
        answer = client.encode(dicom=dicom, picture=picture)
        best = answer.classes[0]
        return {
            "codes": {str(one.bits): HashCode(one.code).hex() for one in answer.hashes},
            "predicted_class": best.label,
            "class_probability": best.probability,
            "in_distribution": answer.in_distribution
            if answer.HasField("in_distribution")
            else None,
            "ood_score": answer.ood_score,
        }

    with Client(address) as client:
        yield encode_one


def _show(results: list[dict[str, Any]]) -> None:
    table = Table("file", "64-bit code", "looks like", "known kind of image")
    verdicts = {True: "yes", False: "no", None: "not calibrated"}
    for result in results:
        if "reason" in result:
            refused = f"[red]{shown(result['reason'])}[/]"
            table.add_row(shown(result["file"]), refused, shown(result["message"]), "")
            continue
        likeness = f"{result['predicted_class']} ({result['class_probability']:.0%})"
        table.add_row(
            shown(result["file"]),
            result["codes"]["64"],
            shown(likeness),
            verdicts[result["in_distribution"]],
        )
    Console().print(table)
