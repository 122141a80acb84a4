"""What is changed, and which unit tests must notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """Modules, and the tests that answer for them."""

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]


TARGETS = (
    Target("codes", ("dafh.codes",), ("tests/test_codes.py",)),
    Target(
        "filters",
        ("dafh.index.filters.milvus", "dafh.index.filters.parse", "dafh.index.filters.tree"),
        ("tests/index/test_filters.py",),
    ),
    Target("ranking", ("dafh.index.ranking",), ("tests/index/test_ranking.py",)),
    Target(
        "imaging",
        (
            "dafh.imaging.colour",
            "dafh.imaging.lut",
            "dafh.imaging.resize",
            "dafh.imaging.suv",
            "dafh.imaging.values",
            "dafh.imaging.voi",
            "dafh.imaging.windows",
        ),
        tuple(
            f"tests/imaging/test_{name}.py"
            for name in ("suv", "voi", "resize", "values", "greys", "colour")
        ),
    ),
)
