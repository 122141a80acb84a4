"""Publishing: never over another content, never untried, never with tensors of other shapes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tritonclient.grpc import InferenceServerClient, model_config_pb2
from tritonclient.utils import InferenceServerException

from dafh.deadline import Deadline
from dafh.encoding.onnx import OnnxEncoder
from dafh.encoding.triton import TritonEncoder
from dafh.errors import Conflict, FailedPrecondition, Internal, InvalidInput
from dafh.imaging.phantom import phantom_images
from dafh_export import repository as repositories
from dafh_export.configuration import BATCH_SIZES, VARIANTS, Variant, configuration, profiles
from dafh_export.golden import GOLDEN_FILE, read_golden
from dafh_export.onnx import export_onnx
from dafh_export.repository import describe, publish, write_configuration
from dafh_export.server import require_golden, serving
from dafh_local.environment import TritonEnvironment
from dafh_local.settings import LocalSettings
from tests.export.models import PUBLISHED, other_run

FILES = ("model.onnx", "model.safetensors", "calibration.json", "provenance.json")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    for file in FILES:
        shutil.copyfile(PUBLISHED / file, folder / file)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return other_run(tmp_path_factory.mktemp("other") / "run")


@pytest.fixture
def published(run: Path, tmp_path: Path) -> Path:
    publish(run, tmp_path / "repository", 1, trial=False)
    return tmp_path / "repository"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("file", ["model.safetensors", "calibration.json"])
def test_a_version_with_other_content_is_refused_and_stays(
    run: Path, published: Path, tmp_path: Path, file: str
) -> None:
    before = contents(published)
    changed = tmp_path / "changed"
    shutil.copytree(run, changed)
    with (changed / file).open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(Conflict, match=rf"Version 1 exists with another {file}"):
        publish(changed, published, 1, trial=False)
    assert contents(published) == before


def test_another_model_under_the_same_number_is_refused(other: Path, published: Path) -> None:
    before = contents(published)
    with pytest.raises(Conflict, match=r"another model\.onnx, model\.safetensors"):
        publish(other, published, 1, trial=False)
    assert contents(published) == before


def test_publishing_the_same_again_changes_nothing(run: Path, published: Path) -> None:
    before = contents(published)
    publish(run, published, 1, trial=False)
    assert contents(published) == before


def test_a_publication_that_was_interrupted_is_completed(run: Path, published: Path) -> None:
    whole = contents(published)
    shutil.rmtree(published / "dafh" / "configs")
    (published / "dafh" / "config.pbtxt").unlink()
    (published / "dafh" / ".1.part").mkdir()
    publish(run, published, 1, trial=False)
    assert contents(published) == whole
    assert not (published / "dafh" / ".1.part").exists()


def test_tensors_of_other_shapes_need_a_model_of_their_own(
    published: Path, run: Path, tmp_path: Path
) -> None:
    smaller = tmp_path / "smaller"
    smaller.mkdir()
    with safe_open(run / "model.safetensors", "pt") as file:
        said = file.metadata() | {"side": "64"}
    save_file(load_file(run / "model.safetensors"), smaller / "model.safetensors", metadata=said)
    export_onnx(smaller, smaller)
    before = contents(published)
    with pytest.raises(Conflict, match="other shapes than version 1") as caught:
        publish(smaller, published, 2, trial=False)
    assert "--name" in caught.value.remedy
    assert contents(published) == before
    publish(smaller, published, 1, "dafh64", trial=False)
    text = (published / "dafh64" / "config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert (config.name, list(config.input[0].dims)) == ("dafh64", [1, 64, 64])


def test_a_file_changed_after_its_export_is_refused(run: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(run, changed)
    data = bytearray((changed / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (changed / "model.onnx").write_bytes(data)
    with pytest.raises(InvalidInput, match="is not the model"):
        publish(changed, tmp_path / "repository", 1, trial=False)
    assert not list((tmp_path / "repository").rglob("*.onnx"))


def test_a_precision_of_unknown_parity_is_not_published(run: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(run, changed)
    shutil.copyfile(PUBLISHED / "model.fp16.onnx", changed / "model.fp16.onnx")
    with pytest.raises(InvalidInput, match="Nothing is known of the parity"):
        publish(changed, tmp_path / "repository", 1, trial=False)
    shutil.copyfile(PUBLISHED / "parity.json", changed / "parity.json")
    publish(changed, tmp_path / "repository", 1, trial=False)


def test_a_run_that_was_not_exported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"holds no model\.onnx"):
        publish(tmp_path, tmp_path / "repository", 1, trial=False)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.file)
def test_the_description_is_all_in_the_configuration(variant: Variant, published: Path) -> None:
    text = configuration(variant, [describe(published / "dafh" / "1")])
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    group = config.instance_group[0]
    assert len(group.profile) == len(variant.batch_sizes)
    assert [one.batch_size for one in config.model_warmup] == list(variant.warm_up)
    assert {one.name: one.count for one in group.rate_limiter.resources} == dict(variant.resources)
    assert config.dynamic_batching.default_queue_policy.max_queue_size > 0
    assert config.response_cache.enable == variant.response_cache
    assert config.max_batch_size == BATCH_SIZES[-1]


def test_the_profiles_serve_every_batch_size_once() -> None:
    served = [size for one in profiles(BATCH_SIZES) for size in range(one.minimum, one.maximum + 1)]
    assert served == list(range(1, BATCH_SIZES[-1] + 1))


@pytest.mark.stack
def test_two_versions_side_by_side_answer_each_with_its_own_weights(
    run: Path, other: Path, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    publish(run, repository, 1, trial=False)
    # Published with the trial in the real server, beside the first.
    publish(other, repository, 2)
    images = phantom_images(6, 5, describe(repository / "dafh" / "1").side)
    with serving(repository, 2) as server:
        answers = []
        for number in (1, 2):
            served, local = TritonEncoder(server.address, number), OnnxEncoder(repository, number)
            ours = served.encode(images, Deadline.after(30))
            theirs = local.encode(images, Deadline.never())
            assert served.model == local.model
            for bits, hashed in ours.hashes.items():
                assert np.abs(hashed - theirs.hashes[bits]).max() <= 1e-5
            answers.append(ours.hashes[64])
            served.close()
    assert np.abs(answers[0] - answers[1]).max() > 0.1


@pytest.mark.stack
def test_a_corrupt_model_file_is_refused_with_the_old_version_still_serving(
    run: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    publish(run, repository, 1, trial=False)
    images = phantom_images(2, 5, describe(repository / "dafh" / "1").side)
    expected = OnnxEncoder(repository, 1).encode(images, Deadline.never())
    # The stack's server takes no orders; this one must.
    monkeypatch.setattr("dafh_local.triton.LOCKED", "trace")
    explicit = ("--model-control-mode=explicit", "--load-model=dafh")
    with serving(repository, 1, *explicit) as server:
        # A second version arrives, cut short on its way.
        publish(other, repository, 2, trial=False)
        (server.model / "2").mkdir()
        for file in ("calibration.json", "model.py"):
            shutil.copyfile(repository / "dafh" / "2" / file, server.model / "2" / file)
        whole = (repository / "dafh" / "2" / "model.onnx").read_bytes()
        (server.model / "2" / "model.onnx").write_bytes(whole[: len(whole) // 2])
        client = InferenceServerClient(server.address)
        with pytest.raises(InferenceServerException, match="version 2 is at UNAVAILABLE"):
            client.load_model("dafh")
        assert client.is_model_ready("dafh", "1")
        assert not client.is_model_ready("dafh", "2")
        client.close()
        encoder = TritonEncoder(server.address, 1)
        answer = encoder.encode(images, Deadline.after(30))
        encoder.close()
    for bits, hashed in answer.hashes.items():
        assert np.abs(hashed - expected.hashes[bits]).max() <= 1e-5


@pytest.mark.stack
def test_a_version_that_does_not_load_is_never_published(
    other: Path, published: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = contents(published)
    broken = tmp_path / "model.py"
    broken.write_text("raise RuntimeError('not today')\n")
    monkeypatch.setattr(repositories, "SERVER_SIDE", broken)
    with pytest.raises(FailedPrecondition, match="did not load"):
        publish(other, published, 2)
    assert contents(published) == before


@pytest.mark.stack
def test_a_server_that_answers_otherwise_than_the_golden_outputs_is_found_out(
    run: Path, other: Path, published: Path, tmp_path: Path
) -> None:
    publish(other, tmp_path / "others", 1, trial=False)
    shutil.copyfile(
        tmp_path / "others" / "dafh" / "1" / GOLDEN_FILE, published / "dafh" / "1" / GOLDEN_FILE
    )
    with pytest.raises(FailedPrecondition, match="not with its golden outputs"):
        require_golden(published, [1], Deadline.after(60))


def test_a_version_without_golden_outputs_is_not_trusted(published: Path) -> None:
    (published / "dafh" / "1" / GOLDEN_FILE).unlink()
    with pytest.raises(InvalidInput, match="Version 1 has no golden outputs"):
        read_golden(published / "dafh" / "1")


def test_golden_images_are_phantoms_and_are_kept_with_the_outputs(published: Path) -> None:
    golden = read_golden(published / "dafh" / "1")
    images = golden["image"]
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, phantom_images(len(images), 2024, images.shape[-1]))


@pytest.mark.stack
def test_a_response_cache_would_answer_without_the_saliency(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tuple(replace(variant, response_cache=True) for variant in VARIANTS)
    monkeypatch.setattr(repositories, "VARIANTS", cached)
    model = describe(published / "dafh" / "1")
    write_configuration(published / "dafh", [model])
    images = phantom_images(1, 5, model.side)
    caches = TritonEnvironment(LocalSettings().triton_home.resolve()).triton / "caches"
    options = (f"--cache-directory={caches}", "--cache-config=local,size=1048576")
    with serving(published, 1, *options) as server:
        encoder = TritonEncoder(server.address, 1)
        encoder.encode(images, Deadline.after(30))
        with pytest.raises(Internal, match="lacks the output saliency"):
            encoder.encode(images, Deadline.after(30), saliency=True)
        encoder.close()
    assert not any(variant.response_cache for variant in VARIANTS)
