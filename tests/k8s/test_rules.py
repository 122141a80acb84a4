"""The manifests of every example keep every rule, and every rule can be broken."""

from __future__ import annotations

import pytest

# Imported for the rules that they add to the table.
from tests.k8s import rules_of_pods, rules_of_programs  # noqa: F401
from tests.k8s.chart import CI, manifests_of
from tests.k8s.mutants import MUTANTS, Change
from tests.k8s.rules import RULES, breaches


@pytest.mark.parametrize("example", CI)
def test_every_rule_is_kept(example: str) -> None:
    assert breaches(manifests_of(example)) == {}


@pytest.mark.parametrize(
    ("rule", "example", "change"),
    [pytest.param(*one, id=f"{number}: {one[0]}") for number, one in enumerate(MUTANTS)],
)
def test_a_fault_is_found_by_its_rule(rule: str, example: str, change: Change) -> None:
    manifests = manifests_of(example)
    change(manifests)
    assert list(RULES[rule](manifests))


def test_every_rule_has_been_broken() -> None:
    assert {rule for rule, _, _ in MUTANTS} == set(RULES)
    assert len(MUTANTS) >= 12
