"""Small changes of a module, made by mutmut's operators."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import libcst
from mutmut.mutation.file_mutation import Mutation, create_mutations


@dataclass(frozen=True)
class Mutant:
    """One changed module."""

    module: str
    path: Path
    source: str
    #: Number of the first line that differs, and the lines before and after.
    line: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.before} -> {self.after}"


@dataclass(frozen=True)
class Change:
    """A change that may be made."""

    module: str
    path: Path
    tree: libcst.Module
    mutation: Mutation

    def made(self) -> Mutant:
        """Make it."""
        changed = self.tree.deep_replace(self.mutation.original_node, self.mutation.mutated_node)
        source = cast("libcst.Module", changed).code
        return _described(self.module, self.path, self.tree.code, source)


def changes(module: str, path: Path) -> list[Change]:
    """Return every change of a module, but those of texts that are for people to read."""
    tree, mutations, *_ = create_mutations(str(path), path.read_text())
    return [Change(module, path, tree, one) for one in mutations if not _prose(one.original_node)]


def _prose(node: libcst.CSTNode) -> bool:
    return isinstance(node, libcst.SimpleString) and " " in node.value


def _described(module: str, path: Path, original: str, source: str) -> Mutant:
    before, after = original.splitlines(), source.splitlines()
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    _, start, end, into, until = next(op for op in matcher.get_opcodes() if op[0] != "equal")
    told = [
        " ".join(line.strip() for line in lines) for lines in (before[start:end], after[into:until])
    ]
    return Mutant(module, path, source, start + 1, *told)
