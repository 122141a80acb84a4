"""What can be seen of the images without building them."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator

import pytest

from dafh.settings import CHECKOUT
from k8s.images import build
from tests.images.containerfile import Containerfile, read

TEXT = (build.IMAGES / "Containerfile").read_text()
USER = "10001:10001"
#: What an image that serves must not be able to make, or to fetch.
TOOLS = re.compile(r"\b(gcc|g\+\+|cc|make|build-essential|apt|apt-get|curl|wget|git)\b")
SECRET = re.compile(r"(?i)(password|secret|token|credential|private|_key\b|\.pem|\.key\b)")
DIGEST = "sha256:" + "0" * 64


def made_as_root(file: Containerfile) -> Iterator[str]:
    yield from (target for target in build.TARGETS if file.last(target, "USER") != USER)


def bases_that_change(file: Containerfile) -> Iterator[str]:
    """Yield stages that build on something else than a stage or BASE, which has no default."""
    for stage in file.stages.values():
        if stage.base not in {"${BASE}", *file.stages}:
            yield stage.name
    if "BASE" not in file.arguments:
        yield "BASE"


def commands_in_images(file: Containerfile) -> Iterator[str]:
    """Yield images in which something is run while they are built: it would leave its traces."""
    for target in build.TARGETS:
        yield from (target for stage in file.lineage(target) if stage.of("RUN"))


def tools(file: Containerfile) -> Iterator[str]:
    for stage in file.stages.values():
        yield from (stage.name for given in stage.of("RUN") if TOOLS.search(given))


def secrets(file: Containerfile) -> Iterator[str]:
    for stage in file.stages.values():
        for kind in ("ARG", "ENV", "COPY", "ADD", "LABEL", "ENTRYPOINT", "CMD"):
            yield from (stage.name for given in stage.of(kind) if SECRET.search(given))


def fetched(file: Containerfile) -> Iterator[str]:
    """Yield stages that take anything from a network, or from the checkout but the models."""
    for stage in file.stages.values():
        yield from (stage.name for _ in stage.of("ADD"))
        for given in stage.of("COPY"):
            if not given.startswith(("--from=build ", "model_repository ")):
                yield stage.name
        for given in stage.of("RUN"):
            if "pip" in given and "--no-index" not in given:
                yield stage.name


def shells(file: Containerfile) -> Iterator[str]:
    """Yield images whose program is started by a shell, which would not pass SIGTERM on."""
    for target in build.TARGETS:
        given = file.last(target, "ENTRYPOINT")
        if given is None or not given.startswith("["):
            yield target


RULES = (made_as_root, bases_that_change, commands_in_images, tools, secrets, fetched, shells)
Rule = Callable[[Containerfile], Iterator[str]]


@pytest.mark.parametrize("rule", RULES)
def test_the_images_keep_the_rule(rule: Rule) -> None:
    assert list(rule(read(TEXT))) == []


@pytest.mark.parametrize(
    ("rule", "old", "new"),
    [
        (made_as_root, "USER 10001:10001", "USER root"),
        (made_as_root, "USER 10001:10001\n", ""),
        (bases_that_change, "ARG BASE\n", "ARG BASE=python:3.11-slim\n"),
        (bases_that_change, "FROM ${BASE} AS deployable", "FROM python:latest AS deployable"),
        (commands_in_images, "FROM deployable AS jobs", "FROM deployable AS jobs\nRUN true"),
        (commands_in_images, "FROM deployable AS jobs", "FROM build AS jobs"),
        (tools, "python3 -m venv", "apt-get install gcc && python3 -m venv"),
        (secrets, "LANG=C.UTF-8", "DAFH_ACCOUNTS_TOKEN=1234"),
        (secrets, "COPY model_repository /repository", "COPY tls.key /repository"),
        (fetched, "COPY model_repository /repository", "COPY . /repository"),
        (fetched, "--no-index ", ""),
        (fetched, "USER", "ADD https://example.org/file /\nUSER"),
        (shells, 'ENTRYPOINT ["dafh"]', "ENTRYPOINT dafh"),
    ],
)
def test_the_rule_sees_a_breach(rule: Rule, old: str, new: str) -> None:
    assert old in TEXT
    assert list(rule(read(TEXT.replace(old, new))))


def test_every_deployable_is_a_target_with_an_extra_of_the_project() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert set(build.TARGETS) <= set(read(TEXT).stages)
    extras = {image.extra for image in build.TARGETS.values()} - {""}
    assert extras == {"gateway", "jobs", "engine"}
    assert extras <= set(project["optional-dependencies"])


@pytest.mark.parametrize(
    ("base", "settled"),
    [
        (f"python:3.11-slim-bookworm@{DIGEST}", True),
        (f"registry.example:5000/tensorrt:26.07-py3@{DIGEST}", True),
        (build.LOCAL_BASE, True),
        ("python:3.11-slim-bookworm", False),
        ("python", False),
        (f"python@{DIGEST}0", False),
        ("localhost.example/python:3.11", False),
    ],
)
def test_a_base_is_named_by_digest(base: str, settled: bool) -> None:
    assert build.is_settled(base) is settled


def test_of_the_checkout_a_build_sees_the_models_alone() -> None:
    lines = (CHECKOUT / ".containerignore").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "*",
        "!model_repository",
        "**/__pycache__",
    ]


def test_the_base_made_here_is_said_to_be_no_base_for_a_release() -> None:
    script = build.IMAGES / "debootstrap.sh"
    assert "for tests" in script.read_text()
    subprocess.run(["/bin/bash", "-n", script], check=True)


def test_the_page_names_the_library_of_a_store_that_suits_ours() -> None:
    """A release of s3fs wants the release of fsspec of its own version."""
    pins = build.CONSTRAINTS.read_text()
    page = (CHECKOUT / "docs" / "images.md").read_text()
    (version,) = re.findall(r"s3fs==(\S+)", page)
    assert f"\nfsspec=={version}\n" in pins
