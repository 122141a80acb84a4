from __future__ import annotations

from pathlib import Path

import pytest

from dafh.errors import DafhError, Misconfigured, Reason
from dafh.errors import Reason as AllReasons
from dafh_gateway.settings import GatewaySettings
from dafh_gateway.statuses import CODES, status_of


@pytest.mark.parametrize("address", ["0.0.0.0:1", "10.0.0.4:1", "[::]:1", "example.org:1", ":1"])
def test_it_refuses_to_listen_beyond_loopback(address: str) -> None:
    settings = GatewaySettings(listen=address, patient_key_file=Path("unused"))
    with pytest.raises(Misconfigured) as caught:
        settings.require_safety()
    assert caught.value.reason is Reason.INSECURE_ADDRESS


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:5", "[::1]:5", "127.8.9.1:5"])
def test_it_listens_on_loopback(address: str) -> None:
    GatewaySettings(listen=address, patient_key_file=Path("unused")).require_safety()


def test_every_kind_of_error_has_a_status() -> None:
    assert set(CODES) == set(DafhError.__subclasses__())
    for kind in CODES:
        status = status_of(kind(AllReasons.INTERNAL, "Something.", remedy="Do.", subject="field"))
        assert status.code == CODES[kind].code.value[0]
        assert len(status.details) >= 1
