from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from dafh.deadline import Deadline
from dafh.encoding.onnx import OnnxEncoder
from dafh.encoding.port import ModelVersion
from dafh.errors import Conflict, InvalidInput
from dafh.settings import CHECKOUT
from dafh_export.checkpoint import load_checkpoint
from dafh_export.configuration import VARIANTS
from dafh_export.onnx import export_onnx
from dafh_export.repository import publish

REPOSITORY = CHECKOUT / "model_repository"
VERSION = REPOSITORY / "dafh" / "1"
LARGEST = 25 * 2**20


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    shutil.copyfile(VERSION / "model.safetensors", run / "model.safetensors")
    shutil.copyfile(VERSION / "calibration.json", run / "calibration.json")
    export_onnx(load_checkpoint(run), run)
    return run


def test_the_committed_checkpoint_gives_the_committed_model(exported: Path) -> None:
    again, committed = (OnnxEncoder(root, 1).model for root in (_published(exported), REPOSITORY))
    assert again == committed
    assert (exported / "model.onnx").read_bytes() == (VERSION / "model.onnx").read_bytes()


def _published(run: Path) -> Path:
    repository = run / "repository"
    publish(run, repository, 1)
    return repository


def test_the_model_file_is_small_enough_and_names_no_path() -> None:
    data = (VERSION / "model.onnx").read_bytes()
    assert len(data) <= LARGEST
    assert b"site-packages" not in data
    assert str(CHECKOUT).encode() not in data
    model = onnx.load_from_string(data)
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


def test_onnx_runtime_agrees_with_torch() -> None:
    encoder, checkpoint = OnnxEncoder(REPOSITORY, 1), load_checkpoint(VERSION)
    side = encoder.model.side
    images = np.random.default_rng(5).integers(0, 256, (4, 1, side, side), dtype=np.uint8)
    served = encoder.encode(images, Deadline.never(), saliency=True)
    with torch.no_grad():
        outputs = checkpoint.network(torch.from_numpy(images))
    for bits, hashed in served.hashes.items():
        assert np.abs(hashed - outputs.hashes[bits].numpy()).max() <= 1e-4
    assert served.saliency is not None
    assert np.abs(served.saliency - outputs.saliency.numpy()).max() <= 1e-4


def test_a_version_with_another_model_is_never_overwritten(exported: Path, tmp_path: Path) -> None:
    repository = _published(exported)
    other = tmp_path / "other"
    shutil.copytree(exported, other, ignore=shutil.ignore_patterns("repository"))
    with (other / "model.onnx").open("ab") as stream:
        stream.write(b"\0")
    before = (repository / "dafh" / "1" / "model.onnx").read_bytes()
    with pytest.raises(Conflict):
        publish(other, repository, 1)
    assert (repository / "dafh" / "1" / "model.onnx").read_bytes() == before


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"model\.safetensors"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.file)
def test_every_committed_configuration_describes_the_committed_version(variant: object) -> None:
    assert hasattr(variant, "file")
    text = (REPOSITORY / "dafh" / variant.file).read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert str(CHECKOUT) not in text
    described = ModelVersion.model_validate_json(config.parameters["dafh_version_1"].string_value)
    assert described == OnnxEncoder(REPOSITORY, 1).model
    assert config.input[0].dims == [1, described.side, described.side]
    assert {output.name for output in config.output} == {
        "hash_16", "hash_32", "hash_48", "hash_64", "logits", "saliency"
    }  # fmt: skip
