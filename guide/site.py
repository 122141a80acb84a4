"""What MkDocs lacks for ``mkdocs.yml``: patterns in the table of contents, links out of the site.

A page of ``docs/`` may link to any file of the repository, for those who read it there. The site
has no such file: there the link becomes the file's name. A link to nothing is a warning, so an
error.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

log = logging.getLogger(f"mkdocs.hooks.{__name__}")

LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>[^)#\s:]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace the patterns of the table of contents by the pages that fit them."""
    config.nav = expanded(config.nav or [], Path(config.docs_dir))
    return config


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace links that lead out of the site by the names of what they lead to."""
    source = Path(page.file.abs_src_path or "")

    def shown(link: re.Match[str]) -> str:
        target = (source.parent / link["target"]).resolve()
        if target.suffix == ".md" and target.is_relative_to(Path(config.docs_dir).resolve()):
            return link[0]
        if not target.exists():
            log.warning("%s links to %s, which does not exist.", page.file.src_path, link["target"])
        root = Path(config.config_file_path).resolve().parent
        name = target.relative_to(root) if target.is_relative_to(root) else link["target"]
        return f"{link['text']} (`{name}`)" if link["text"] != str(name) else f"`{name}`"

    del files
    return LINK.sub(shown, markdown)


def expanded(entries: list[Any], docs: Path) -> list[Any]:
    """Return a table of contents in which pages stand for each pattern."""
    found: list[Any] = []
    for entry in entries:
        if isinstance(entry, dict):
            found += [
                {title: expanded(below, docs) if isinstance(below, list) else below}
                for title, below in entry.items()
            ]
        elif "*" in entry:
            found += sorted(path.relative_to(docs).as_posix() for path in docs.glob(entry))
        else:
            found.append(entry)
    return found
