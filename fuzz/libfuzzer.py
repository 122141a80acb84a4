"""The process that libFuzzer drives: `python -m fuzz.libfuzzer TARGET [libFuzzer's arguments]`.

A finding is whatever is no typed error, a crash of a codec, an input that takes too long, and
memory beyond the limit.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["dafh.imaging"]):
    from fuzz.targets import TARGETS

from dafh.errors import DafhError
from tests.imaging.mutations import mutate


def mutated(data: bytes, max_size: int, seed: int) -> bytes:
    """Damage the structure in every other case; libFuzzer's own way in the rest."""
    changed = mutate(data, seed) if seed % 2 else atheris.Mutate(data, max_size)
    return bytes(changed[:max_size])


def main() -> None:
    """Run the target that the first argument names."""
    target = TARGETS[sys.argv.pop(1)]

    def test_one_input(data: bytes) -> None:
        try:
            target(data)
        except DafhError:
            return

    atheris.Setup(sys.argv, test_one_input, custom_mutator=mutated, internal_libfuzzer=True)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
