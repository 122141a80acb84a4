"""Where to compute, and in what: on a GPU where there is one, in bfloat16 where that is fast."""

from __future__ import annotations

from typing import Literal

import torch

#: As Lightning Fabric names them.
Precision = Literal["bf16-mixed", "32-true"]


def best_device() -> torch.device:
    """Return the GPU, or else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def precision(device: torch.device) -> Precision:
    """Return what a network is trained fastest in.

    GPUs compute in bfloat16, and oneDNN has kernels for it on processors with AVX-512. On those
    with AVX2 alone it is emulated, and a training step takes four times as long as in float32.
    """
    fast = device.type == "cuda" or torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return "bf16-mixed" if fast else "32-true"


def autocast(device: torch.device) -> torch.autocast:
    """Return a context that computes in bfloat16 where that is fast, else changes nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision(device) == "bf16-mixed")
