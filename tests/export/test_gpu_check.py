"""``make gpu-check`` measures where there is a GPU and says so where there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dafh.settings import CHECKOUT
from dafh_export import gpu_check
from dafh_export.checkpoint import load_checkpoint
from dafh_export.gpu_check import GpuCheck, check, draw, operations

VERSION = CHECKOUT / "model_repository" / "dafh" / "1"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_and_is_no_failure(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "dafh_export.gpu_check", "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert "there is no GPU" in answer.stderr
    assert not (tmp_path / "out").exists()


def test_its_figures_are_of_the_same_kind_on_any_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "ROUNDS", 2)
    monkeypatch.setattr(gpu_check, "WARM_UP", 0)
    result = check(VERSION, torch.device("cpu"), batches=(1, 2))
    assert {(one.runner, one.type, one.batch) for one in result.measured} == {
        ("torch", kind, batch) for kind in ("fp32", "fp16", "bf16") for batch in (1, 2)
    }
    for one in result.measured:
        assert one.images_per_second == pytest.approx(1e3 * one.batch / one.median_ms)
        assert one.p99_ms >= one.median_ms > 0
        assert one.share_of_ceiling > 0
    assert result.copy_gigabytes_per_second > 0
    draw(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    assert GpuCheck.model_validate(json.loads(result.model_dump_json())) == result


def test_the_work_of_an_image_is_counted_not_guessed() -> None:
    # EfficientNet-B0 takes 0.39e9 multiply-adds at 224 x 224 (Tan and Le, ICML 2019, table 2).
    flops = operations(load_checkpoint(VERSION))
    expected = 2 * 0.39e9 * (128 / 224) ** 2
    assert expected * 0.8 < flops < expected * 1.5
