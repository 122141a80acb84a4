"""``python -m guide.licences`` writes docs/licences.md: what DAFH stands on, under which licences.

Facts are those that the installed distributions state of themselves.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dafh.settings import CHECKOUT

PAGE = CHECKOUT / "docs" / "licences.md"
#: Extras that nobody installs to use DAFH.
DEVELOPMENT = {"audit", "bench", "dev", "fuzz", "mutants"}

#: What a distribution states -> the SPDX identifier of what it means.
SPDX = {
    "2-clause BSD License": "BSD-2-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD 2-Clause License": "BSD-2-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT license": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Other/Proprietary License": "LicenseRef-Proprietary",
    "Proprietary": "LicenseRef-Proprietary",
    "Python Software Foundation License": "PSF-2.0",
    "The MIT License (MIT)": "MIT",
}
EXPRESSION = re.compile(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*")
#: Those that state nothing, by what their projects publish.
UNSTATED = {"milvus-lite": "Apache-2.0"}
#: Shared libraries inside wheels whose licence asks for more than a notice, by their names.
COPYLEFT = {
    "libav[cfu]*": ("FFmpeg", "LGPL-2.1-or-later"),
    "libsw*": ("FFmpeg", "LGPL-2.1-or-later"),
    "libgcc_s*": ("GCC", "GPL-3.0-or-later WITH GCC-exception-3.1"),
    "libgfortran*": ("GCC", "GPL-3.0-or-later WITH GCC-exception-3.1"),
    "libgomp*": ("GCC", "GPL-3.0-or-later WITH GCC-exception-3.1"),
    "libquadmath*": ("GCC", "LGPL-2.1-or-later"),
}
#: Shared libraries under the GPL that wheels of codecs and of numerics are known to bring.
GPL_LIBRARIES = ("libfftw3*", "libgsl*", "libpostproc*", "libreadline*", "libx26[45]*", "libxvid*")


@dataclass(frozen=True)
class Dependency:
    """A distribution that DAFH needs."""

    name: str
    licence: str
    #: Extras of DAFH that bring it; "" is the base.
    extras: frozenset[str]
    #: Shared libraries in it, without version and suffix.
    libraries: frozenset[str]


def dependencies(extras: Iterable[str]) -> list[Dependency]:
    """Return what extras bring, by name; what is not installed here is left out."""
    declared = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    brings = declared["optional-dependencies"] | {"": declared["dependencies"]}
    found: dict[str, set[str]] = {}
    for extra in sorted({"", *extras}):
        for name in _closure(brings, extra):
            found.setdefault(name, set()).add(extra)
    return [
        Dependency(
            name, licence(distribution(name)), frozenset(found[name]), libraries(distribution(name))
        )
        for name in sorted(found)
    ]


def shipped_extras() -> list[str]:
    """Return the extras that somebody installs to use DAFH."""
    declared = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    return sorted(set(declared["optional-dependencies"]) - DEVELOPMENT)


def _closure(brings: dict[str, list[str]], extra: str) -> set[str]:
    """Return the names of all that an extra brings, by any number of steps."""
    names: set[str] = set()
    seen: set[tuple[str, str]] = set()
    left = [("dafh", extra)]
    while left:
        name, of = left.pop()
        if (name, of) in seen:
            continue
        seen.add((name, of))
        if name == "dafh":
            stated = brings[of]
        else:
            try:
                stated = distribution(name).requires or []
            except PackageNotFoundError:
                continue
            names.add(name)
        for text in stated:
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate({"extra": of}):
                left += [(canonicalize_name(need.name), one) for one in ("", *need.extras)]
    return names


def licence(found: Distribution) -> str:
    """Return the SPDX expression of a distribution's licence, "" where it states none."""
    stated = found.metadata
    if expressions := stated.get_all("License-Expression"):
        return str(expressions[0])
    classifiers = [one for one in stated.get_all("Classifier") or [] if one[:10] == "License ::"]
    words = [
        *(stated.get_all("License") or []),
        *(one.rpartition(" :: ")[2] for one in classifiers),
    ]
    for word in map(str.strip, words):
        if word in SPDX:
            return SPDX[word]
        if EXPRESSION.fullmatch(word) and word not in {"UNKNOWN", "PSFL"}:
            return word
    return UNSTATED.get(canonicalize_name(stated["Name"]), "")


def libraries(found: Distribution) -> frozenset[str]:
    """Return the names of shared libraries that a wheel brings from elsewhere."""
    return frozenset(
        re.split(r"[-.]", file.name)[0]
        for file in found.files or []
        if ".so" in file.name and (file.parts[0].endswith(".libs") or "lib" in file.parts[:-1])
    )


def copyleft(libraries: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield project and licence of those libraries whose licence asks for more than a notice."""
    for pattern, of in COPYLEFT.items():
        if any(fnmatch(name, pattern) for name in libraries):
            yield of


def is_gpl(expression: str) -> bool:
    """Say whether every choice that a licence leaves has the GPL or AGPL in it, unexcepted."""
    choices = re.sub(r"[()]", "", expression).split(" OR ")
    return all(
        any(re.search(r"(?<!L)GPL", term) and "WITH" not in term for term in choice.split(" AND "))
        for choice in choices
    )


def page() -> str:
    """Return docs/licences.md."""
    used = dependencies(shipped_extras())
    others = {one.name for one in used}
    tools = [one for one in dependencies({"dev"}) if one.name not in others]
    inside: dict[tuple[str, str], set[str]] = {}
    for one in used:
        for of in copyleft(one.libraries):
            inside.setdefault(of, set()).add(one.name)
    lines = [
        "# Licences",
        "",
        "<!-- Made by `make licences`; change `guide/licences.py` instead. -->",
        "",
        "DAFH is under the Apache License 2.0. Nothing of what it stands on is copied into this",
        "repository; an installation or an image brings it. A test refuses what is under the GPL",
        "or AGPL without an exception in anything that somebody installs to use DAFH. Versions are",
        "in `constraints.txt`.",
        "",
        "## What an installation brings",
        "",
        "By the extra that is installed; the base comes always.",
        "",
        "| package | licence | comes with |",
        "|---|---|---|",
    ]
    lines += [row(one) for one in used]
    lines += [
        "",
        "Libraries that lie inside these wheels, of a licence that asks for more than a notice;",
        "all are linked dynamically and can be replaced:",
        "",
        "| library | licence | inside |",
        "|---|---|---|",
    ]
    lines += [
        f"| {project} | {terms} | {', '.join(sorted(names))} |"
        for (project, terms), names in sorted(inside.items())
    ]
    lines += [
        "",
        "Servers that DAFH talks to are programs of their own: Triton Inference Server",
        "(BSD-3-Clause; on a laptop out of the wheel of PyTriton, Apache-2.0, with numpy, ONNX",
        "Runtime and protobuf for its models), Milvus (Apache-2.0), and on a GPU TensorRT and CUDA",
        "(NVIDIA's own terms; DAFH brings neither).",
        "",
        "## What only developing needs",
        "",
        "| package | licence |",
        "|---|---|",
    ]
    lines += [f"| {one.name} | {one.licence} |" for one in tools]
    lines += [
        "",
        "tensorrt-cu13-bindings are NVIDIA's, under its own terms: the names in TensorRT's Python",
        "interface, without TensorRT. A test of the exporter holds calls against them; nothing",
        "that is shipped brings them.",
        "",
        "`make fuzz`, `make mutants`, `make audit` and `make sbom` install atheris (Apache-2.0),",
        "mutmut (BSD-3-Clause), pip-audit and cyclonedx-bom (Apache-2.0), and what these need.",
        "Checkov (Apache-2.0), which lints the chart, has an environment of its own;",
        "`constraints-checkov.txt` pins what it brings, and that is not listed here.",
        "",
        "The example in TypeScript brings, as its `package-lock.json` states it:",
        "",
        "| npm package | licence |",
        "|---|---|",
        *npm_rows(),
    ]
    return "\n".join(lines) + "\n"


def npm_rows() -> list[str]:
    """Return the lines of what the example in TypeScript brings."""
    lock = json.loads((CHECKOUT / "examples" / "typescript" / "package-lock.json").read_text())
    return [
        f"| {place.removeprefix('node_modules/')} | {stated.get('license', '')} |"
        for place, stated in sorted(lock["packages"].items())
        if place
    ]


def row(one: Dependency) -> str:
    """Return the line of a dependency."""
    extras = "the base" if "" in one.extras else ", ".join(sorted(one.extras))
    return f"| {one.name} | {one.licence} | {extras} |"


if __name__ == "__main__":
    PAGE.write_text(page())
