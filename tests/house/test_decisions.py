"""Decisions are cited by their number, so each has one of its own, and is listed."""

from __future__ import annotations

import re
from collections import Counter

from tests.house.test_house import CHECKOUT, WRITTEN, files

INDEX = CHECKOUT / "docs" / "decisions" / "README.md"
DECISIONS = sorted((CHECKOUT / "docs" / "decisions").glob("0*.md"))
#: How texts cite one, or several.
CITED = re.compile(r"\bdecisions? (\d+)(?:(?:, | and |, and )(\d+))*", re.IGNORECASE)


def test_every_decision_has_a_number_of_its_own() -> None:
    numbers = Counter(path.name[:4] for path in DECISIONS)
    assert [number for number, count in numbers.items() if count > 1] == []
    assert numbers


def test_every_decision_says_its_number() -> None:
    for path in DECISIONS:
        assert path.read_text().startswith(f"# {int(path.name[:4])}. "), path.name


def test_the_list_of_decisions_is_whole_and_says_which_numbers_are_not_there() -> None:
    text = INDEX.read_text()
    titles = {path.name: path.read_text().splitlines()[0].removeprefix("# ") for path in DECISIONS}
    assert re.findall(r"^- \[(.+)\]\((.+)\)$", text, re.MULTILINE) == [
        (title, name) for name, title in titles.items()
    ]
    there = {int(name[:4]) for name in titles}
    for number in set(range(1, max(there))) - there:
        assert f"There is no decision {number}:" in text


def test_every_decision_that_is_cited_is_there() -> None:
    numbers = {int(path.name[:4]) for path in DECISIONS}
    cited = {
        (str(path.relative_to(CHECKOUT)), int(number))
        for path in files(*WRITTEN, "dafh", "services", "export", "README.md", "CONTRIBUTING.md")
        if path.suffix in {".md", ".py", ".yaml", ".tpl"} and path != INDEX
        for found in CITED.finditer(path.read_text())
        for number in re.findall(r"\d+", found[0])
    }
    assert len(cited) > 10
    assert [one for one in sorted(cited) if one[1] not in numbers] == []


def test_a_link_to_a_decision_leads_to_the_one_that_it_names() -> None:
    links = [
        (found["number"], found["to"])
        for path in (CHECKOUT / "docs").rglob("*.md")
        for found in re.finditer(
            r"\[decision (?P<number>\d+)\]\((?:decisions/)?0*(?P<to>\d+)-", path.read_text()
        )
    ]
    assert len(links) > 10
    assert [link for link in links if link[0] != link[1]] == []
