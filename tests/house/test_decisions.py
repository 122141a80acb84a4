"""Decisions are cited by their number, so each has one of its own."""

from __future__ import annotations

from collections import Counter

from tests.house.test_house import CHECKOUT

DECISIONS = sorted((CHECKOUT / "docs" / "decisions").glob("*.md"))


def test_every_decision_has_a_number_of_its_own() -> None:
    numbers = Counter(path.name[:4] for path in DECISIONS)
    assert [number for number, count in numbers.items() if count > 1] == []
    assert numbers


def test_every_decision_says_its_number() -> None:
    for path in DECISIONS:
        assert path.read_text().startswith(f"# {int(path.name[:4])}. "), path.name
