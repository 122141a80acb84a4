"""An installation brings what the product imports, and nothing that only its tests need."""

from __future__ import annotations

import ast
import tomllib
from importlib.metadata import packages_distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from guide.licences import shipped_extras
from tests.house.test_house import CHECKOUT, SOURCES, files

#: What no import names -> who needs it.
UNNAMED = {
    "cyclonedx-bom": "a program that makes bills of materials",
    "lief": "modelopt, which does not ask for it",
    "milvus-lite": "a program that dafh_local starts",
    "nvidia-ml-py": "dafh_export.tensorrt, by the name pynvml in text",
    "onnxscript": "torch, when it writes ONNX",
}


def imported() -> set[str]:
    """Return the distributions whose modules the product imports."""
    modules: set[str] = set()
    for path in files(*SOURCES, suffix=".py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {name.name.partition(".")[0] for name in node.names}
            if isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.partition(".")[0])
    owners = packages_distributions()
    return {canonicalize_name(owner) for name in modules for owner in owners.get(name, ())}


def test_what_an_installation_brings_is_imported_by_what_is_shipped() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    brought = {
        canonicalize_name(Requirement(text).name)
        for extra in shipped_extras()
        for text in project["optional-dependencies"][extra]
    }
    used = imported()
    assert {"imagecodecs", "torch", "tritonclient"} <= brought & used
    assert sorted(brought - used - set(UNNAMED) - {"dafh"}) == []
    assert sorted(set(UNNAMED) & used) == []
