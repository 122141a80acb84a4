"""What the examples render to, kept beside the tests: a change of the chart shows what it changes.

``python -m tests.k8s.golden`` writes them anew.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from tests.k8s.chart import CHART, CI, texts_of

FOLDER = Path(__file__).with_name("golden")
#: A file of its own, and held against it as it is.
VERBATIM = {"dashboard.yaml"}


def golden_texts(example: str) -> dict[str, str]:
    """Return what an example renders to, without the version that every release changes."""
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    return {
        name: text.replace(version, "VERSION")
        for name, text in texts_of(example).items()
        if name not in VERBATIM
    }


def main() -> None:
    """Write all of them anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    for example in CI:
        (FOLDER / example).mkdir(parents=True)
        for name, text in golden_texts(example).items():
            (FOLDER / example / name).write_text(text)


if __name__ == "__main__":
    main()
