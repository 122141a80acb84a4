"""The rules of the house that no linter knows (see CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dafh.errors import Reason

CHECKOUT = Path(__file__).resolve().parents[2]

#: Folders of what is served, and all that people write.
SOURCES = ("dafh", "services", "export", "model_repository")
WRITTEN = (*SOURCES, ".ci", "bench", "docs", "fuzz", "guide", "k8s", "mutants", "protos", "tests")
WRITTEN_KINDS = {".md", ".proto", ".py", ".toml", ".yaml", ""}
GENERATED = {CHECKOUT / "dafh" / "v1", CHECKOUT / "tests" / "k8s" / "golden"}

MOST_LINES = 500
#: Names that say nothing: a thing with such a name has no place of its own yet.
EMPTY_NAMES = {"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}
#: Ways to read the environment.
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb"}

WAIVER = re.compile(
    r"#\s*(type:\s*ignore|noqa)(?P<codes>\[[a-z, -]+\]|:\s*[A-Z]+\d+(, ?[A-Z]+\d+)*)?"
)


def files(*roots: str, suffix: str | None = None) -> list[Path]:
    """Return files below folders of the checkout, or named so; what was generated is left out."""
    return sorted(
        path
        for root in roots
        for path in [CHECKOUT / root, *(CHECKOUT / root).rglob("*")]
        if path.is_file()
        and (suffix is None or path.suffix == suffix)
        and "__pycache__" not in path.parts
        and not GENERATED & set(path.parents)
    )


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(CHECKOUT)}:{line}"


def environment_reads(path: Path) -> Iterator[int]:
    """Yield lines that take the environment from `os`, by attribute or by name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT:
            yield node.lineno
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (node.lineno for name in node.names if name.name in ENVIRONMENT)


def blanket_waivers(path: Path) -> Iterator[int]:
    """Yield lines that silence a tool without saying which rule, or without saying why.

    The reason stands behind the waiver or in a comment on the line above.
    """
    lines = path.read_text().splitlines()
    with path.open("rb") as stream:
        tokens = list(tokenize.tokenize(stream.readline))
    for token in tokens:
        found = WAIVER.search(token.string) if token.type == tokenize.COMMENT else None
        if found is None:
            continue
        reason = re.search(r"\w", token.string[found.end() :])
        above = lines[token.start[0] - 2].lstrip() if token.start[0] > 1 else ""
        if not found["codes"] or not (reason or above.startswith("#")):
            yield token.start[0]


def empty_class_names(path: Path) -> Iterator[int]:
    """Yield lines of classes such as ``ThingManager``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            words = {word.lower() for word in re.findall("[A-Z][a-z]+", node.name)}
            if words & EMPTY_NAMES:
                yield node.lineno


def breaches(rule: Callable[[Path], Iterator[int]], paths: list[Path]) -> list[str]:
    return [place(path, line) for path in paths for line in rule(path)]


def test_environment_is_read_in_settings_only() -> None:
    paths = [p for p in files(*SOURCES, "protos", suffix=".py") if p.name != "settings.py"]
    assert len(paths) > 20
    assert breaches(environment_reads, paths) == []


def test_every_waiver_names_its_rule_and_its_reason() -> None:
    assert breaches(blanket_waivers, files(*SOURCES, "protos", "tests", suffix=".py")) == []


def test_files_are_short_enough_to_read() -> None:
    top = [path.name for path in CHECKOUT.iterdir() if path.is_file() and path.name != "LICENSE"]
    long = [
        place(path, lines)
        for path in files(*WRITTEN, *top)
        if path.suffix in WRITTEN_KINDS and (lines := path.read_bytes().count(b"\n")) > MOST_LINES
    ]
    assert long == []


def test_what_a_full_disk_is_stands_in_one_place() -> None:
    known = [path for path in files(*SOURCES, suffix=".py") if "ENOSPC" in path.read_text()]
    assert known == [CHECKOUT / "dafh" / "writing.py"]


def test_names_say_something() -> None:
    paths = files(*WRITTEN)
    words = {path: set(re.split(r"[_\-.]", path.stem.lower())) for path in paths}
    words |= {path.parent: set(path.parent.name.lower().split("_")) for path in paths}
    assert [str(path.relative_to(CHECKOUT)) for path in words if words[path] & EMPTY_NAMES] == []
    assert breaches(empty_class_names, [path for path in paths if path.suffix == ".py"]) == []


def test_every_reason_is_given_somewhere() -> None:
    paths = [p for p in files(*SOURCES, suffix=".py") if p != CHECKOUT / "dafh" / "errors.py"]
    given = {
        node.attr
        for path in paths
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "Reason"
    }
    assert sorted(set(Reason) - given) == []


@pytest.mark.parametrize(
    ("rule", "source", "lines"),
    [
        (environment_reads, "import os\nx = os.environ['A']\ny = os.getenv('A')\n", [2, 3]),
        (environment_reads, "from os import environ\n", [1]),
        (environment_reads, "import os\nos.getpid()\n", []),
        (blanket_waivers, "x = 1  # type: ignore\n", [1]),
        (blanket_waivers, "x = 1  # noqa\n", [1]),
        (blanket_waivers, "x = 1\ny = 1  # noqa: E501\n", [2]),
        (blanket_waivers, "x = 1  # type: ignore[misc]  # the stub is wrong\n", []),
        (blanket_waivers, "# The stub is wrong.\nx = 1  # type: ignore[misc]\n", []),
        (blanket_waivers, "x = 1  # noqa: S104 - loopback inside the container\n", []),
        (empty_class_names, "class ConnectionManager: ...\n", [1]),
        (empty_class_names, "class Manageress: ...\n", []),
    ],
)
def test_the_rules_see_a_breach(
    tmp_path: Path, rule: Callable[[Path], Iterator[int]], source: str, lines: list[int]
) -> None:
    path = tmp_path / "example.py"
    path.write_text(source)
    assert sorted(rule(path)) == lines
