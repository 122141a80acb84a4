"""What the documentation tells people to type works, or says why no test types it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from dafh.imaging.phantom import phantoms
from dafh.settings import CHECKOUT
from dafh_local.ports import free_port

from .fences import BASH, CHECKS, RUN, Fence, faults_of_line, fences, inline, pages, words_of

FENCES = [fence for page in pages() for fence in fences(page)]
RUNNABLE = {
    page: [fence for fence in of_page if fence.language in RUN and not fence.not_run]
    for page, of_page in groupby(FENCES, key=lambda fence: fence.page)
}
#: Where the documentation says that the gateway listens.
ADDRESS = "127.0.0.1:50051"
#: Seconds that a block may take.
PATIENCE = 100


class Sandbox:
    """A folder with a few images, and a stack of its own: where a reader would type."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ports = {f"DAFH_{part}_PORT": str(free_port()) for part in ("TRITON", "MILVUS", "GATEWAY")}
        self.address = f"127.0.0.1:{ports['DAFH_GATEWAY_PORT']}"
        self.settings = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DAFH_")},
            **ports,
            "DAFH_TRITON_METRICS_PORT": str(free_port()),
            "HOME": str(folder),
            "XDG_DATA_HOME": str(folder / "data"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        # Of other patients, all of them; the first one is asked about.
        first, *others = phantoms(24, 5)
        (folder / "some-image.dcm").write_bytes(first.data)
        (folder / "images").mkdir()
        for phantom in others:
            (folder / "images" / phantom.file_name).write_bytes(phantom.data)
        (folder / ".venv").symlink_to(Path(sys.executable).parents[1])

    def run(self, fence: Fence) -> None:
        """Run a block as it stands, but for the address."""
        text = fence.text.replace(ADDRESS, self.address)
        arguments = [word.replace(ADDRESS, self.address) for word in fence.arguments]
        program = {"sh": [BASH, "-euo", "pipefail", "-s", "--"], "python": [sys.executable, "-"]}
        done = subprocess.run(
            [*program[fence.language], *arguments],
            cwd=self.folder, env=self.settings, input=text, capture_output=True, text=True,
            timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{fence}\n{done.stdout}\n{done.stderr}"


def typed(text: str) -> Fence:
    """Return commands that stand in no page."""
    return Fence("", 0, "sh", text, "", ())


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
