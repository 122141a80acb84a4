"""Code in the documentation: found, and checked without running it.

A fence that cannot be run by a test stands below a comment that says why::

    <!-- not run: your own data -->

and a program that takes arguments below one that names them::

    <!-- run with: 127.0.0.1:50051 some-image.dcm -->
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer
import yaml
from markdown_it import MarkdownIt

from dafh.cli import build
from dafh.index.filters.parse import parse
from dafh.settings import CHECKOUT

REMARK = re.compile(r"<!-- (?P<kind>not run|run with): (?P<text>\S.*?) -->\s*")
#: What a page says of files of the repository, in folders that readers do not make themselves.
PLACE = re.compile(r"(?<![\w./-])(?:recipes|model_repository|k8s|examples)/[\w./-]*")
#: What a command line of ours may begin with.
DAFH = {"dafh", ".venv/bin/dafh"}
BASH = shutil.which("bash") or "bash"


@dataclass(frozen=True)
class Fence:
    """A block of code in a page."""

    page: str
    line: int
    language: str
    text: str
    #: Why no test runs it; "" where one does.
    not_run: str
    #: Arguments of a program.
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Return the pages whose code is checked."""
    top = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", CHECKOUT / "SECURITY.md"]
    return top + sorted(
        page for root in ("docs", "examples", "k8s") for page in (CHECKOUT / root).rglob("*.md")
    )


def fences(page: Path) -> Iterator[Fence]:
    """Yield the blocks of code of a page, with what the comment above each says."""
    before = None
    for token in MarkdownIt().parse(page.read_text()):
        if token.type == "fence":
            assert token.map is not None
            said = before.groupdict() if before else {"kind": "", "text": ""}
            yield Fence(
                page.relative_to(CHECKOUT).as_posix() if page.is_relative_to(CHECKOUT) else "",
                token.map[0] + 1,
                token.info.strip(),
                token.content,
                said["text"] if said["kind"] == "not run" else "",
                tuple(shlex.split(said["text"])) if said["kind"] == "run with" else (),
            )
        before = REMARK.fullmatch(token.content) if token.type == "html_block" else None


def inline(page: Path) -> Iterator[str]:
    """Yield what a page shows as code within a sentence."""
    for token in MarkdownIt().enable("table").parse(page.read_text()):
        for child in token.children or []:
            if child.type == "code_inline":
                yield child.content


def missing_places(text: str) -> list[str]:
    """Return the files and folders that a page names, and that the repository has not."""
    named = {found.rstrip(".") for found in PLACE.findall(text)}
    return sorted(place for place in named if not (CHECKOUT / place).exists())


def faults_of_shell(text: str) -> list[str]:
    """Return what is wrong with commands, as far as it can be told without running them."""
    parsed = subprocess.run([BASH, "-n"], input=text, capture_output=True, text=True, check=False)
    if parsed.returncode:
        return [parsed.stderr]
    lines = text.replace("\\\n", " ").splitlines()
    return [fault for line in lines for fault in faults_of_line(words_of(line))]


def words_of(line: str) -> list[str]:
    """Return the words of a line, without comments, settings before it and substitutions."""
    words = shlex.split(re.sub(r"\$\([^)]*\)", "x", line), comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    return words


def faults_of_line(words: list[str]) -> list[str]:
    """Return what is wrong with one command, if it is one of ours."""
    match words:
        case [program, *rest] if program in DAFH:
            return faults_of_dafh(rest)
        case ["make", *targets]:
            known = set(
                re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
            )
            named = {target for target in targets if "=" not in target}
            return [f"no target {target}" for target in sorted(named - known)]
        case [program, "-m", module, *_] if program.endswith("python"):
            return [] if known_module(module) else [f"no module {module}"]
    return []


def known_module(name: str) -> bool:
    """Say whether Python, or this checkout, has a module."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@cache
def dafh() -> object:
    """Return the whole command line, as click has it."""
    return typer.main.get_command(build([]))


def faults_of_dafh(words: list[str]) -> list[str]:
    """Return which commands and options of ``dafh ...`` do not exist."""
    # Typer does not say of which type a command or a group is.
    command: Any = dafh()
    path = ["dafh"]
    words = [word.strip("[],.") for word in words]
    while (below := getattr(command, "commands", None)) and words and words[0][0] != "-":
        path.append(words.pop(0))
        if path[-1] not in below:
            return [f"no command `{' '.join(path)}`"]
        command = below[path[-1]]
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    return [f"`{' '.join(path)}` has no {name}" for name in sorted(options - known - {"--help"})]


def faults_of_python(text: str) -> list[str]:
    """Return what is wrong with a program, as far as it can be told without running it."""
    try:
        ast.parse(text)
    except SyntaxError as error:
        return [str(error)]
    return []


def faults_of_filters(text: str) -> list[str]:
    """Refuse what the filter language does not take."""
    for line in text.splitlines():
        parse(line)
    return []


def _read_by(reader: Callable[[str], object]) -> Callable[[str], list[str]]:
    def faults(text: str) -> list[str]:
        reader(text)
        return []

    return faults


#: Language of a fence -> what finds the faults of its text. There are no other languages.
CHECKS: dict[str, Callable[[str], list[str]]] = {
    "sh": faults_of_shell,
    "python": faults_of_python,
    "toml": _read_by(tomllib.loads),
    "yaml": _read_by(lambda text: list(yaml.safe_load_all(text))),
    "json": _read_by(json.loads),
    "filter": faults_of_filters,
    "text": lambda _: [],
}
#: Languages that are run.
RUN = {"sh", "python"}
