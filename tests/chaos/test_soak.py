"""A long run: what a gateway takes does not grow with the calls that it has answered."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dafh.client import Client, Target
from dafh.imaging.phantom import phantoms
from dafh.v1 import retrieval_service_pb2
from tests.chaos.conftest import Site
from tests.chaos.process import GatewayProcess
from tests.gateway.filled import PREFERRED, fill

pytestmark = [pytest.mark.stack, pytest.mark.long, pytest.mark.timeout(3600)]
CALLS = 100_000
#: Share of the calls that bring an image; the others bring a code, and so are quicker.
IMAGES = 0.05
LOOKS = 50
#: Bytes that one call may leave behind, on average.
LEFT = 20


def test_memory_and_files_do_not_grow(site: Site) -> None:
    files = [one.data for one in phantoms(400, 74)]
    with GatewayProcess(site.folder / "gateway.log", **site.values()) as gateway:
        target = Target(gateway.address)
        with Client(target, timeout=60) as client:
            fill(client, "default", 50, 73)

            def ask(number: int) -> None:
                if number % round(1 / IMAGES) == 0:
                    client.retrieve(dicom=files[number % len(files)])
                else:
                    code = np.random.default_rng(number).bytes(8)
                    query = retrieval_service_pb2.CodeQuery(
                        code=code, bits=64, model_version=PREFERRED
                    )
                    client.retrieve(code=query)

            resident, opened = [], []
            step = CALLS // LOOKS
            with ThreadPoolExecutor(4) as pool:
                for look in range(LOOKS):
                    list(pool.map(ask, range(look * step, (look + 1) * step)))
                    resident.append(gateway.status("VmRSS"))
                    opened.append(gateway.descriptors())
    # The first fifth warms up: threads, arenas, and caches that have a bound.
    warm = LOOKS // 5
    calls = np.arange(LOOKS)[warm:] * step
    slope = np.polyfit(calls, resident[warm:], 1)[0]
    assert slope < LEFT, (slope, resident)
    assert max(opened[warm:]) <= opened[warm] + 8, opened
