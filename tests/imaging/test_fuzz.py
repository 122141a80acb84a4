"""The short form of `make fuzz`: the same targets, seeds and damage, without a guide."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from dafh.errors import DafhError
from fuzz.replay import resident
from fuzz.seeds import SEEDS
from fuzz.targets import TARGETS

from .mutations import mutate

#: As `make fuzz`.
USED = ("decode", "codecs")
#: Damaged copies of each seed, and bytes of the largest seed that is tried.
COPIES = 4
LARGEST = 2**14
#: Seconds of a processor that one input may take, and MiB that the process may grow while all of
#: them are tried once more.
SLOWEST = 2.0
GROWTH = 8.0


@pytest.mark.parametrize("target", USED)
def test_damage_gives_an_answer_or_a_refusal_soon_and_costs_no_memory(target: str) -> None:
    seeds = [seed for seed in SEEDS[target]() if len(seed) <= LARGEST]
    inputs = [mutate(seed, number) for seed in seeds for number in range(COPIES)]
    answers, slowest = 0, 0.0
    for _ in range(2):
        before = resident()
        for data in inputs:
            started = time.process_time()
            with suppress(DafhError):
                TARGETS[target](data)
                answers += 1
            slowest = max(slowest, time.process_time() - started)
    # Both happen: damage to what is refused anyway would find nothing.
    assert len(inputs) / 5 < answers < 2 * len(inputs)
    assert slowest < SLOWEST
    assert resident() - before < GROWTH
