"""What the documentation tells people to type works, or says why no test types it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from dafh.settings import CHECKOUT

from .fences import (
    CHECKS,
    RUN,
    Fence,
    faults_of_line,
    fences,
    inline,
    missing_places,
    pages,
    words_of,
)
from .sandbox import Sandbox, typed

FENCES = [fence for page in pages() for fence in fences(page)]
RUNNABLE = {
    page: [fence for fence in of_page if fence.language in RUN and not fence.not_run]
    for page, of_page in groupby(FENCES, key=lambda fence: fence.page)
}


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    made = Sandbox(tmp_path_factory.mktemp("reader"))
    try:
        yield made
    finally:
        made.run(typed("dafh down"))


@pytest.mark.stack
@pytest.mark.parametrize("page", [page for page, found in RUNNABLE.items() if found])
def test_what_a_page_says_works(page: str, sandbox: Sandbox) -> None:
    for command in ("dafh up --detach", "dafh index images"):
        sandbox.run(typed(command))
    for fence in RUNNABLE[page]:
        sandbox.run(fence)


@pytest.mark.parametrize("fence", FENCES, ids=str)
def test_code_in_a_page_is_sound(fence: Fence) -> None:
    assert fence.language in CHECKS, f"a block is of one of the languages {', '.join(CHECKS)}"
    assert CHECKS[fence.language](fence.text) == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(CHECKOUT).as_posix())
def test_commands_within_sentences_exist(page: Path) -> None:
    assert [
        fault
        for code in inline(page)
        if code.startswith(("dafh ", "make "))
        for fault in faults_of_line(words_of(code.replace("'", "").replace("…", "")))
    ] == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(CHECKOUT).as_posix())
def test_files_of_the_repository_that_a_page_names_are_there(page: Path) -> None:
    assert missing_places(page.read_text()) == []


def test_a_file_that_is_not_there_is_noticed() -> None:
    text = "`recipes/none.toml`, ../k8s/none, recipes/table.toml. See k8s/."
    assert missing_places(text) == ["recipes/none.toml"]


def test_most_pages_for_people_are_run() -> None:
    run = {page for page, found in RUNNABLE.items() if found}
    assert {"README.md", "docs/getting-started.md", "docs/concepts.md", "docs/codes.md"} <= run


@pytest.mark.parametrize(
    ("language", "text", "told"),
    [
        ("sh", "dafh up --detach", ""),
        ("sh", "DAFH_X=1 .venv/bin/dafh index a \\\n  --frames all | head # dafh nothing", ""),
        ("sh", "dafh up --detached", "--detached"),
        ("sh", "dafh index a \\\n  --no-such-thing=3", "--no-such-thing"),
        ("sh", "dafh archives list", "archives"),
        ("sh", "dafh archive lists", "lists"),
        ("sh", "make tests", "tests"),
        ("sh", "python -m dafh_nothing.at.all", "dafh_nothing"),
        ("sh", "if true; then", "syntax error"),
        ("python", "print(", "never closed"),
    ],
)
def test_what_does_not_exist_is_found(language: str, text: str, told: str) -> None:
    faults = CHECKS[language](text)
    assert told in "".join(faults)
    assert bool(faults) == bool(told)


def test_remarks_belong_to_the_block_below(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- not run: a cluster -->\n```sh\nx\n```\n\n```sh\ny\n```\n\n"
        "<!-- run with: a 'b c' -->\n```python\nz\n```\n\n"
        "<!-- not run: this -->\n\nno\n\n```sh\n```\n"
    )
    said = [(fence.not_run, fence.arguments) for fence in fences(page)]
    assert said == [("a cluster", ()), ("", ()), ("", ("a", "b c")), ("", ())]


@pytest.mark.stack
def test_a_command_that_fails_is_noticed(sandbox: Sandbox) -> None:
    with pytest.raises(AssertionError, match="no-such-folder"):
        sandbox.run(typed("dafh inspect no-such-folder\ntrue\n"))
