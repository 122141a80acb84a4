from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from google.protobuf import descriptor_pb2

from dafh.settings import CHECKOUT
from dafh_gateway.reference import pages


def test_pages_are_those_of_the_contract_and_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "dafh.binpb"
    script = str(CHECKOUT / "protos" / "generate.py")
    subprocess.run([sys.executable, script, "--descriptors", str(path)], check=True)
    fresh = pages(descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()))
    assert len(fresh) == 9
    stale = [name for name in fresh if (CHECKOUT / "docs" / name).read_text() != fresh[name]]
    assert stale == [], "run `make docs`"
