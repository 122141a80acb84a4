"""`dafh doctor` looks at what the product stands on, and at nothing else."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from types import SimpleNamespace

import imagecodecs
import pytest

from dafh.settings import CHECKOUT
from dafh_local import doctor
from dafh_local.doctor import CODECS, LIBRARIES, PACKAGES, Level

IMAGING = CHECKOUT / "dafh" / "imaging"
#: Without these of the base no command would have begun.
BASE = {"pydantic", "rich", "typer"}


def nodes() -> Iterator[ast.AST]:
    """Yield what `dafh.imaging` is written of."""
    for path in IMAGING.rglob("*.py"):
        yield from ast.walk(ast.parse(path.read_text()))


def imported() -> set[str]:
    """Return the modules of other projects that are imported."""
    modules: set[str] = set()
    for node in nodes():
        if isinstance(node, ast.Import):
            modules |= {name.name.partition(".")[0] for name in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module.partition(".")[0])
    return modules - set(sys.stdlib_module_names) - {"dafh"}


def test_it_looks_at_every_library_that_imaging_imports() -> None:
    by_module = packages_distributions()
    needed = {by_module[name][0].lower() for name in imported() - BASE}
    assert needed <= {*PACKAGES, *LIBRARIES}
    assert set(LIBRARIES) <= needed


def test_it_looks_at_every_codec_that_decodes() -> None:
    used = {
        node.attr.removesuffix("_decode").upper()
        for node in nodes()
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "imagecodecs"
        and node.attr.endswith("_decode")
    }
    assert used == set(CODECS)


def test_all_that_is_installed_here_is_whole() -> None:
    assert {finding.level for finding in doctor._libraries()} == {Level.OK}


def test_a_codec_that_does_not_load_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagecodecs, "JPEGLS", SimpleNamespace(available=False))
    found = {finding.name: finding for finding in doctor._libraries()}
    assert found["imagecodecs"].level is Level.FAULT
    assert found["imagecodecs"].found == "does not decode JPEG-LS"
    assert "--force-reinstall imagecodecs" in found["imagecodecs"].remedy
    assert found["pillow"].level is Level.OK


def test_a_library_that_does_not_import_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    found = {finding.name: finding for finding in doctor._libraries()}
    assert found["opencv-python-headless"].level is Level.FAULT
    assert found["opencv-python-headless"].found.startswith("does not import")
