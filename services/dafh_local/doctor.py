"""What is installed and reachable, and what to do about what is not."""

from __future__ import annotations

import platform
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from dafh.encoding.onnx import OnnxEncoder
from dafh.encoding.port import MODEL
from dafh.errors import DafhError, Reason
from dafh.imaging.image import IMAGING_VERSION
from dafh.security.keys import load_key
from dafh_local.environment import MILVUS_REPAIR, TritonEnvironment, require_milvus
from dafh_local.plan import log_file
from dafh_local.settings import LocalSettings
from dafh_local.status import State, look
from dafh_local.triton import CONFIGURATION

#: The one version of Milvus Lite that stores binary vectors and serves over TCP.
MILVUS_LITE = "2.5.1"
#: Distribution -> what it is for; all of the `local` extra.
PACKAGES = {
    "grpcio": "gRPC",
    "numpy": "arrays",
    "onnxruntime": "the model in this process",
    "pydicom": "DICOM",
    "pymilvus": "the index",
    "tritonclient": "the encoder",
}
#: Distribution -> (module that must import, what it is for).
LIBRARIES = {
    "imagecodecs": ("imagecodecs", "compressed DICOM, JPEG"),
    "opencv-python-headless": ("cv2", "scaling and drawing"),
    "pillow": ("PIL.PngImagePlugin", "PNG"),
}
#: Codec of imagecodecs, each a library of its own -> what it decodes (`dafh.imaging.codecs`).
CODECS = {
    "JPEG8": "JPEG",
    "JPEGLS": "JPEG-LS",
    "JPEG2K": "JPEG 2000, HTJ2K",
    "JPEGXL": "JPEG XL",
    "PACKBITS": "RLE",
}
#: What a damaged version folder makes of itself when it is read.
DAMAGED = (DafhError, OSError, KeyError, ValueError)
INSTALL = "Run `pip install 'dafh[local]'` (`make setup` does)."


class Level(StrEnum):
    """How a finding is meant."""

    OK = "ok"
    #: Nothing is wrong, but worth knowing.
    NOTE = "note"
    FAULT = "fault"


class Finding(BaseModel):
    """One thing that was looked at."""

    model_config = ConfigDict(frozen=True)

    name: str
    level: Level
    found: str
    remedy: str = ""


def examine(data_dir: Path, settings: LocalSettings) -> list[Finding]:
    """Look at everything; a look that fails is a finding, not an error."""
    triton = TritonEnvironment(settings.triton_home.expanduser().resolve())
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("Python", _python),
        ("packages", _packages),
        ("libraries", _libraries),
        ("Triton's server", lambda: _triton(triton)),
        ("Milvus Lite", _milvus),
        ("model", lambda: _model(settings)),
        ("data directory", lambda: _data(data_dir, settings)),
        ("stack", lambda: _stack(data_dir)),
    ]
    findings: list[Finding] = []
    for name, check in checks:
        try:
            findings.extend(check())
        except DafhError as error:
            findings.append(
                Finding(name=name, level=Level.FAULT, found=error.message, remedy=error.remedy)
            )
    return findings


def _python() -> Iterator[Finding]:
    machine = f"{platform.system()} {platform.machine()}"
    fits = sys.version_info[:2] in {(3, 11), (3, 12)} and machine == "Linux x86_64"
    yield Finding(
        name="Python",
        level=Level.OK if fits else Level.FAULT,
        found=f"{platform.python_implementation()} {platform.python_version()}, {machine}",
        remedy="" if fits else "The embedded Triton needs CPython 3.11 or 3.12 on Linux x86-64.",
    )


def _packages() -> Iterator[Finding]:
    for name, purpose in PACKAGES.items():
        yield _installed(name, f"for {purpose}")


def _libraries() -> Iterator[Finding]:
    for name, (module, purpose) in LIBRARIES.items():
        finding = _installed(name, f"for {purpose}")
        if finding.level is Level.OK and (lacking := _lacking(module)):
            finding = Finding(
                name=name,
                level=Level.FAULT,
                found=lacking,
                remedy=f"Install it again: `pip install --force-reinstall {name}`.",
            )
        yield finding


def _lacking(module: str) -> str:
    """Return what is wrong with a library that is installed; "" where nothing is."""
    try:
        library = import_module(module)
    except ImportError as error:
        return f"does not import ({error.msg})"
    if module != "imagecodecs":
        return ""
    # It loads each codec when it is first named, and stands in for one that does not load.
    lost = [said for name, said in CODECS.items() if not getattr(library, name).available]
    return f"does not decode {', '.join(lost)}" if lost else ""


def _installed(name: str, purpose: str) -> Finding:
    try:
        return Finding(name=name, level=Level.OK, found=f"{version(name)}, {purpose}")
    except PackageNotFoundError:
        return Finding(
            name=name, level=Level.FAULT, found=f"not installed, {purpose}", remedy=INSTALL
        )


def _triton(environment: TritonEnvironment) -> Iterator[Finding]:
    environment.require()
    yield Finding(name="Triton's server", level=Level.OK, found=f"installed in {environment.home}")


def _milvus() -> Iterator[Finding]:
    require_milvus()
    installed = version("milvus-lite")
    fits = installed == MILVUS_LITE
    yield Finding(
        name="Milvus Lite",
        level=Level.OK if fits else Level.FAULT,
        found=installed,
        remedy="" if fits else f"Run `{MILVUS_REPAIR}`.",
    )


def _model(settings: LocalSettings) -> Iterator[Finding]:
    repository = settings.model_repository.expanduser().resolve()
    configuration = repository / MODEL / CONFIGURATION
    configured = configuration.read_text() if configuration.is_file() else ""
    folders = (repository / MODEL).glob("[0-9]*")
    numbers = sorted({int(folder.name) for folder in folders} | {settings.model_version})
    for number in numbers:
        name = f"model version {number}"
        try:
            model = OnnxEncoder(repository, number).model
        except DAMAGED as error:
            yield Finding(name=name, level=Level.FAULT, found=str(error), remedy=_PUBLISH)
            continue
        # The configuration is what the gateway reads, the file is what computes.
        agree = model.hash in configured and model.imaging_version == IMAGING_VERSION
        yield Finding(
            name=name,
            level=Level.OK if agree else Level.FAULT,
            found=f"{model.hash[:12]}…, {model.side}², imaging version {model.imaging_version}"
            + ("" if agree else ", which the configuration or this release does not know"),
            remedy="" if agree else _PUBLISH,
        )


_PUBLISH = "Publish the version again with `dafh export repository`."


def _data(data_dir: Path, settings: LocalSettings) -> Iterator[Finding]:
    existing = next(path for path in (data_dir, *data_dir.parents) if path.exists())
    free = shutil.disk_usage(existing).free >> 20
    enough = free >= settings.minimum_free_mib
    yield Finding(
        name="disk",
        level=Level.OK if enough else Level.FAULT,
        found=f"{free} MiB free where {data_dir} lies",
        remedy="" if enough else "Make room, or choose another disk with --data-dir.",
    )
    if not data_dir.is_dir():
        yield Finding(
            name="data directory", level=Level.NOTE, found=f"{data_dir} does not exist yet"
        )
        return
    private = not stat.S_IMODE(data_dir.stat().st_mode) & 0o077
    yield Finding(
        name="data directory",
        level=Level.OK if private else Level.FAULT,
        found=f"{data_dir}, {'private' if private else 'open to other users'}",
        remedy="" if private else f"Run `chmod 700 {data_dir}`.",
    )
    key = data_dir / "keys" / "patient.key"
    if key.exists():
        load_key(key)
        yield Finding(name="patient key", level=Level.OK, found="there, readable by you only")


def _stack(data_dir: Path) -> Iterator[Finding]:
    try:
        answer = look(data_dir)
    except DafhError as error:
        if error.reason is not Reason.NOT_RUNNING:
            raise
        yield Finding(
            name="stack", level=Level.NOTE, found="not running", remedy="Start it with `dafh up`."
        )
        return
    for part in answer.parts:
        fine = part.state is State.SERVING
        yield Finding(
            name=f"stack: {part.name}",
            level=Level.OK if fine else Level.FAULT,
            found=f"{part.state} {part.address}".rstrip(),
            remedy="" if fine else f"Run `dafh up`; {log_file(data_dir, part.name)} says more.",
        )
