"""What is committed is what the exporter makes, and says what torch says."""

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
from dafh.settings import CHECKOUT
from dafh_export.checkpoint import load_checkpoint
from dafh_export.configuration import VARIANTS, Variant
from dafh_export.golden import TOLERANCE, by_tensor, difference, read_golden
from dafh_export.model_file import Precision, load_model, model_hash, read_description
from dafh_export.onnx import export_onnx
from dafh_export.precision import put_precision
from dafh_export.repository import CONTENT, publish

REPOSITORY = CHECKOUT / "model_repository"
MODEL = REPOSITORY / "dafh"
VERSIONS = sorted(int(path.name) for path in MODEL.iterdir() if path.name.isdigit())
LARGEST = 25 * 2**20


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> Path:
    return MODEL / str(request.param)


def test_the_committed_checkpoint_gives_the_committed_version_bit_for_bit(
    tmp_path: Path, version: Path
) -> None:
    run, repository, number = tmp_path / "run", tmp_path / "repository", int(version.name)
    run.mkdir()
    for file in ("model.safetensors", "calibration.json", "parity.json"):
        shutil.copyfile(version / file, run / file)
    description = export_onnx(run, run)
    for precision in Precision:
        if (version / precision.file).exists() and precision is Precision.FP16:
            put_precision(run / "model.onnx", run, precision)
    publish(run, repository, number, trial=False)
    for file in CONTENT:
        committed, made = version / file, repository / "dafh" / version.name / file
        assert committed.exists() == made.exists(), file
        if committed.exists():
            assert made.read_bytes() == committed.read_bytes(), file
    assert description.hash == OnnxEncoder(REPOSITORY, number).model.hash


def test_the_hash_is_of_graph_and_weights_and_of_nothing_else(version: Path) -> None:
    model = load_model(version / "model.onnx")
    said = read_description(model).hash
    assert model_hash(model) == said
    model.producer_version = "another"
    onnx.helper.set_model_props(model, {"note": "x"})
    assert model_hash(model) == said
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weights.raw_data = bytes([weights.raw_data[0] ^ 1]) + weights.raw_data[1:]
    assert model_hash(model) != said


def test_model_files_are_small_and_name_no_path(version: Path) -> None:
    for path in version.glob("*.onnx"):
        data = path.read_bytes()
        assert len(data) <= LARGEST
        for trace in (b"site-packages", b".py", str(CHECKOUT).encode(), b"/tmp/"):
            assert trace not in data, (path.name, trace)
        graph = onnx.load_from_string(data).graph
        assert not any(node.doc_string or node.metadata_props for node in graph.node)


def test_the_file_says_what_it_is(version: Path) -> None:
    described = read_description(load_model(version / "model.onnx"))
    checkpoint = load_checkpoint(version)
    assert described.classes == checkpoint.classes
    assert described.side == checkpoint.side
    assert described.bits == (16, 32, 48, 64)
    assert described.imaging_version > 0


def test_onnx_runtime_agrees_with_torch_on_any_batch(version: Path) -> None:
    encoder, checkpoint = OnnxEncoder(REPOSITORY, int(version.name)), load_checkpoint(version)
    side = encoder.model.side
    images = np.random.default_rng(5).integers(0, 256, (5, 1, side, side), dtype=np.uint8)
    with torch.no_grad():
        outputs = checkpoint.network(torch.from_numpy(images))
    for count in (1, 5):
        served = encoder.encode(images[:count], Deadline.never(), saliency=True)
        for bits, hashed in served.hashes.items():
            assert np.abs(hashed - outputs.hashes[bits].numpy()[:count]).max() <= 1e-4
        assert served.saliency is not None
        assert np.abs(served.saliency - outputs.saliency.numpy()[:count]).max() <= 1e-4


def test_the_golden_outputs_are_repeated_here(version: Path) -> None:
    golden = read_golden(version)
    images = np.asarray(golden["image"], np.uint8)
    encoded = OnnxEncoder(REPOSITORY, int(version.name)).encode(
        images, Deadline.never(), saliency=True
    )
    assert difference(golden, by_tensor(encoded)) <= TOLERANCE


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.file)
def test_every_committed_configuration_describes_every_committed_version(variant: Variant) -> None:
    text = (MODEL / variant.file).read_text()
    assert str(CHECKOUT) not in text
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert set(config.parameters) == {f"dafh_version_{number}" for number in VERSIONS}
    for number in VERSIONS:
        said = config.parameters[f"dafh_version_{number}"].string_value
        described = ModelVersion.model_validate_json(said)
        assert described == OnnxEncoder(REPOSITORY, number).model
        assert config.input[0].dims == [1, described.side, described.side]
    assert {output.name for output in config.output} == {
        "hash_16", "hash_32", "hash_48", "hash_64", "logits", "saliency"
    }  # fmt: skip
