"""Images are built and run by `make test-images` only, where root and podman are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from k8s.images import build

WHERE = "runs images: `make test-images`, as root and with podman"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "images" in config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("images"):
            item.add_marker(pytest.mark.skip(reason=WHERE))


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    """Return the references of the images; those that are not of this checkout are built."""
    if os.geteuid() != 0 or not Path(build.PODMAN).exists():
        pytest.skip(WHERE)
    for target in build.TARGETS:
        if not build.is_fresh(target):
            build.build(target, build.LOCAL_BASE)
    return {target: build.reference(target) for target in build.TARGETS}
