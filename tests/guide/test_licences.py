"""What DAFH stands on may be shipped with it, and is listed."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest
from packaging.licenses import canonicalize_license_expression

from guide.licences import GPL_LIBRARIES, PAGE, dependencies, is_gpl, page, row, shipped_extras

SHIPPED = dependencies(shipped_extras())


def test_what_is_shipped_is_known_whole() -> None:
    names = {one.name for one in SHIPPED}
    # Of the base, by one step and by two; of extras, by an extra of a dependency too.
    assert {"grpcio", "pydantic-core", "imagecodecs", "milvus-lite", "torch", "orjson"} <= names
    assert not {"pytest", "mypy", "hypothesis"} & names
    assert [one.name for one in SHIPPED if not one.licence] == []


def test_nothing_that_is_shipped_is_under_the_gpl() -> None:
    assert [one.name for one in SHIPPED if is_gpl(one.licence)] == []


def test_no_wheel_that_is_shipped_brings_a_library_under_the_gpl() -> None:
    assert any(one.libraries for one in SHIPPED)
    assert [
        f"{one.name}: {name}"
        for one in SHIPPED
        for name in one.libraries
        for pattern in GPL_LIBRARIES
        if fnmatch(name, pattern)
    ] == []


def test_the_page_lists_all_that_is_shipped() -> None:
    text = PAGE.read_text()
    assert [one.name for one in SHIPPED if row(one) not in text] == [], "run `make licences`"


def test_every_row_of_the_page_has_a_licence_that_is_an_spdx_expression() -> None:
    """Of the page that is there, and of the one that would be made of what is installed."""
    for text in (PAGE.read_text(), page()):
        tables = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| ")]
        stated = {name.strip(): terms.strip() for name, terms in tables if terms != " licence "}
        assert {"numpy", "imagehash", "kubernetes-validate", "@grpc/grpc-js"} <= stated.keys()
        for name, terms in stated.items():
            assert terms, name
            assert canonicalize_license_expression(terms) == terms, name


@pytest.mark.parametrize(
    ("expression", "gpl"),
    [
        ("MIT", False),
        ("GPL-3.0-or-later", True),
        ("AGPL-3.0-only", True),
        ("LGPL-2.1-or-later", False),
        ("GPL-3.0-or-later WITH GCC-exception-3.1", False),
        ("MIT OR GPL-2.0-only", False),
        ("MIT AND GPL-2.0-only", True),
        ("BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1", False),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", False),
    ],
)
def test_a_gpl_licence_is_seen(expression: str, gpl: bool) -> None:
    assert is_gpl(expression) == gpl
