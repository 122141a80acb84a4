"""Jobs speak to servers on other machines over mutual TLS, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from dafh.errors import Misconfigured, Reason, Unavailable
from dafh_jobs.deployment import connected, deployment
from tests.index.servers import LiteServer
from tests.jobs.jobs import Job
from tests.security.triton import TlsTriton


@pytest.mark.stack
def test_a_job_sends_its_images_over_mutual_tls(
    lite: LiteServer, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TlsTriton(tmp_path / "triton") as triton:

        def with_certificate(of: trustme.CA) -> Job:
            settings = triton.settings("job", of)
            told = {f"DAFH_{name.upper()}": value for name, value in settings.items()}
            sources = (str(few),)
            return Job(lite.endpoint, triton.address, tmp_path, sources, "tls", settings=told)

        for name, value in with_certificate(trustme.CA()).environment.items():
            monkeypatch.setenv(name, value)
        with connected("default", tmp_path) as servers, pytest.raises(Unavailable):
            servers.encoders.describe(1)
        assert with_certificate(triton.ca).finish()["outcomes"] == {"added": 60}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("DAFH_TRITON_ADDRESS", "triton.example:8001"),
        ("DAFH_TRITON_ADDRESS", "dns:///triton.example:8001"),
        ("DAFH_MILVUS_URI", "http://milvus.example:19530"),
    ],
)
def test_nothing_goes_to_another_machine_in_plaintext(
    setting: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAFH_MILVUS_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("DAFH_PATIENT_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv(setting, value)
    with pytest.raises(Misconfigured) as refusal, connected("default", tmp_path):
        pass
    assert refusal.value.reason is Reason.INSECURE_ADDRESS


def test_the_stack_is_looked_for_where_the_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAFH_MILVUS_URI", raising=False)
    monkeypatch.setenv("DAFH_DATA_DIR", str(tmp_path))
    with pytest.raises(Misconfigured, match=str(tmp_path)):
        deployment(None)
