from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from google.protobuf import descriptor_pb2

from dafh.settings import CHECKOUT, Settings
from dafh_gateway.reference import errors_page, pages
from dafh_gateway.settings import GatewaySettings
from dafh_gateway.settings_page import described, settings_page


def test_pages_are_those_of_the_contract_and_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "dafh.binpb"
    script = str(CHECKOUT / "protos" / "generate.py")
    subprocess.run([sys.executable, script, "--descriptors", str(path)], check=True)
    fresh = pages(descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()))
    assert len(fresh) == 10
    stale = [name for name in fresh if (CHECKOUT / "docs" / name).read_text() != fresh[name]]
    assert stale == [], "run `make docs`"


def test_every_status_code_has_one_row() -> None:
    table = errors_page().partition("## Reasons")[0]
    codes = re.findall(r"^\| ([A-Z_]+) \|", table, re.MULTILINE)
    assert len(codes) == len(set(codes)) > 10


def test_every_setting_of_the_gateway_is_told_once_with_a_meaning() -> None:
    kinds = [one for one in GatewaySettings.__mro__ if issubclass(one, Settings)]
    told = [(name, said) for kind in kinds for names, said in described(kind) for name in names]
    assert sorted(name for name, _ in told) == sorted(GatewaySettings.model_fields)
    assert [name for name, said in told if not said] == []


def test_the_page_of_settings_tells_limits_in_mebibytes_and_no_path_of_a_machine() -> None:
    page = settings_page("")
    assert "| `DAFH_MAX_MESSAGE` | 67108864 (64 MiB) | Largest message, bytes" in page
    assert "| 62914560 (60 MiB), 62914560 (60 MiB), 268435456 (256 MiB) | Largest image" in page
    assert str(CHECKOUT) not in page
