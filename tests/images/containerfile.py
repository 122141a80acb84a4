"""A Containerfile as its stages."""

from __future__ import annotations

import re
from dataclasses import dataclass

INSTRUCTION = re.compile(r"^([A-Z]+)\s+(.*)$", re.DOTALL)


@dataclass(frozen=True)
class Stage:
    """From one FROM to the next."""

    name: str
    base: str
    #: Instructions and what they are given, in order.
    instructions: tuple[tuple[str, str], ...]

    def of(self, name: str) -> list[str]:
        """Return what one kind of instruction is given."""
        return [given for instruction, given in self.instructions if instruction == name]


@dataclass(frozen=True)
class Containerfile:
    """What all stages see, and the stages."""

    arguments: tuple[str, ...]
    stages: dict[str, Stage]

    def lineage(self, name: str) -> list[Stage]:
        """Return the stages that an image is made of, the first one first."""
        found: list[Stage] = []
        while name in self.stages:
            found.insert(0, self.stages[name])
            name = found[0].base
        return found

    def last(self, target: str, instruction: str) -> str | None:
        """Return what an instruction was given last, in an image."""
        given = [one for stage in self.lineage(target) for one in stage.of(instruction)]
        return given[-1] if given else None


def read(text: str) -> Containerfile:
    """Take a Containerfile apart."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    arguments: list[str] = []
    stages: dict[str, Stage] = {}
    name = ""
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        found = INSTRUCTION.match(line)
        assert found is not None, line
        instruction, given = found[1], " ".join(found[2].split())
        if instruction == "FROM":
            base, _, name = given.partition(" AS ")
            stages[name] = Stage(name, base, ())
        elif not name:
            assert instruction == "ARG", line
            arguments.append(given)
        else:
            before = stages[name]
            stages[name] = Stage(name, before.base, (*before.instructions, (instruction, given)))
    return Containerfile(tuple(arguments), stages)
