"""Files to decode: phantoms, and small instances written element by element."""

from __future__ import annotations

import pytest

from dafh.imaging.phantom import Phantom, phantoms

from .instances import SEED, MakeInstance, write_instance


@pytest.fixture(scope="session")
def sample() -> list[Phantom]:
    """Enough phantoms to meet every modality and most transfer syntaxes."""
    return list(phantoms(48, SEED))


@pytest.fixture(scope="session")
def make_instance() -> MakeInstance:
    return write_instance
