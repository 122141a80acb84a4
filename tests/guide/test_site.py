"""The site is whole, and needs nothing from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dafh.settings import CHECKOUT

#: What a browser fetches by itself, as against what a reader may click.
FETCHED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"'](?:https?:)?//"
    r"|<link\b[^>]*\bhref=[\"'](?:https?:)?//"
    r"|@import\s+(?:url\()?[\"'](?:https?:)?//|url\([\"']?(?:https?:)?//"
)


def built(site: Path, config: Path = CHECKOUT / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--config-file", config, "--site-dir", site],
        capture_output=True, text=True, check=False, timeout=170,
    )  # fmt: skip


def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    done = built(tmp_path)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    sources = list((CHECKOUT / "docs").rglob("*.md"))
    # The search page and 404 come with the theme.
    assert len(pages) >= len(sources)
    fetching = [
        f"{page.relative_to(tmp_path)}: {found[0]}"
        for page in (*pages, *tmp_path.rglob("*.css"))
        if (found := FETCHED.search(page.read_text()))
    ]
    assert fetching == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[x](nothing.md)", "nothing.md"),
        ("[x](../nothing.py)", "nothing.py"),
        ("[x](index.md#nothing)", "nothing"),
        ("[x](../mkdocs.yml)", ""),
    ],
)
def test_a_link_to_nothing_breaks_the_build(tmp_path: Path, text: str, told: str) -> None:
    shutil.copytree(CHECKOUT / "guide", tmp_path / "guide")
    (tmp_path / "docs").mkdir()
    config = (CHECKOUT / "mkdocs.yml").read_text()
    (tmp_path / "mkdocs.yml").write_text(config.partition("\nnav:")[0] + "\nnav: ['*.md']\n")
    (tmp_path / "docs" / "index.md").write_text(f"# Page\n\n{text}\n")
    done = built(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert bool(done.returncode) == bool(told), done.stderr
    assert told in done.stderr
    if not told:
        assert "<code>mkdocs.yml</code>" in (tmp_path / "site" / "index.html").read_text()


def test_what_would_be_fetched_is_seen() -> None:
    assert FETCHED.search('<script async src="https://x.example/a.js">')
    assert FETCHED.search('<link rel="stylesheet" href="//x.example/a.css">')
    assert FETCHED.search("src: url(https://x.example/a.woff2)")
    assert not FETCHED.search('<a href="https://google.aip.dev/160">')
    assert not FETCHED.search('<script src="js/theme.js">')


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_of_pages_beside_the_site_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (CHECKOUT / page).read_text())
    assert [target for target in targets if not (CHECKOUT / target).exists()] == []


def test_every_proof_on_the_page_on_security_is_a_test() -> None:
    text = (CHECKOUT / "docs" / "security.md").read_text()
    rows = [line for line in text.partition("## Threats")[2].splitlines() if line.startswith("| ")]
    assert len(rows) > 20
    for row in rows[1:]:
        proofs = re.findall(r"`(tests/\S+\.py)::(\w+)`", row)
        assert proofs, row
        for file, name in proofs:
            assert re.search(rf"^def {name}\(", (CHECKOUT / file).read_text(), re.MULTILINE), name
