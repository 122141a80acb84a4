"""The command line: what is missing is said at once, and nothing is half made."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import pytest

from dafh.errors import InvalidInput
from dafh.settings import CHECKOUT
from dafh_export.images import read_split
from dafh_export.onnx import export_onnx
from dafh_export.provenance import Provenance, file_digest, revision
from tests.export.models import PUBLISHED

without_tensorrt = pytest.mark.skipif(
    find_spec("tensorrt") is not None, reason="TensorRT is installed here"
)


def dafh(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", "from dafh.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@without_tensorrt
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_without_tensorrt_the_command_fails_at_once_and_leaves_nothing(
    tmp_path: Path, precision: str
) -> None:
    shutil.copyfile(PUBLISHED / "model.onnx", tmp_path / "model.onnx")
    answer = dafh(
        "export", "tensorrt", "--onnx", tmp_path / "model.onnx", "--out", tmp_path / "out",
        "--precision", precision, "--timing-cache", tmp_path / "timing.cache",
    )  # fmt: skip
    assert answer.returncode == 2
    assert "needs TensorRT" in answer.stderr
    assert "nvcr.io/nvidia/tensorrt" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@without_tensorrt
def test_without_tensorrt_a_pod_gets_no_repository_and_the_volume_nothing(tmp_path: Path) -> None:
    answer = dafh(
        "export", "plans", "--repository", PUBLISHED.parents[1], "--cache", tmp_path / "cache",
        "--out", tmp_path / "out", "--precision", "fp16",
    )  # fmt: skip
    assert answer.returncode == 2
    assert "needs TensorRT" in answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_building_in_the_cluster_needs_neither_torch_nor_modelopt() -> None:
    code = (
        "import sys; import dafh_export.commands, dafh_export.serving_repository,"
        " dafh_export.plans, dafh_export.tensorrt;"
        "print([name for name in ('torch', 'monai', 'modelopt', 'safetensors')"
        " if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_provenance_says_when_from_what_and_with_what_it_was_made(tmp_path: Path) -> None:
    shutil.copyfile(PUBLISHED / "model.safetensors", tmp_path / "model.safetensors")
    description = export_onnx(tmp_path, tmp_path / "out")
    said = Provenance.model_validate_json((tmp_path / "out" / "provenance.json").read_bytes())
    assert datetime.now(UTC) - said.exported < timedelta(minutes=5)
    assert said.model_hash == description.hash
    assert said.checkpoint == file_digest(tmp_path / "model.safetensors")
    assert said.tools.keys() >= {"torch", "onnx", "onnxslim"}
    assert said.revision == revision(CHECKOUT)
    assert str(tmp_path) not in said.model_dump_json()


def test_outside_git_there_is_no_revision(tmp_path: Path) -> None:
    assert revision(tmp_path) == ""


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"model\.safetensors"):
        export_onnx(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,split\na.png,query\n", "lacks the column class"),
        ("file,class,split\na.png,x,train\n", "No row of the manifest is of the split query"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(tmp_path: Path, text: str, said: str) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(text)
    with pytest.raises(InvalidInput, match=said):
        read_split(manifest, tmp_path, "query", 32)
