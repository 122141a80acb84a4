"""The hash layer: a linear map, a norm, and Ptanh, a tanh whose steepness is learnt."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Ptanh(nn.Module):
    """Parameterised tanh, ``tanh(exp(log_steepness) * x)``: towards sign(x) as it steepens.

    The paper names the activation; the parameterisation (one positive factor per head, learnt in
    log space) is our reading. Keeps the shape of its input; values in (-1, 1).
    """

    def __init__(self, steepness: float = 1.0) -> None:
        super().__init__()
        self.log_steepness = nn.Parameter(torch.tensor(float(steepness)).log())

    def forward(self, values: Tensor) -> Tensor:
        """Return the squashed values."""
        return torch.tanh(self.log_steepness.exp() * values)


class HashHead(nn.Module):
    """Map fused features ``[N, F]`` to one code length's hash output ``[N, bits]`` in (-1, 1).

    Batch norm before the code centres each bit, so that it splits the data evenly (Hoe et al.,
    "One Loss for All: Deep Hashing with a Single Cosine Similarity based Learning Objective",
    NeurIPS 2021, §3.3).
    """

    def __init__(self, features: int, bits: int, *, learnt: bool = True) -> None:
        super().__init__()
        self.project = nn.Linear(features, bits, bias=False)
        self.norm = nn.BatchNorm1d(bits)
        self.squash: nn.Module = Ptanh() if learnt else nn.Tanh()

    def forward(self, fused: Tensor) -> Tensor:
        """Return the hash output."""
        hashed: Tensor = self.squash(self.norm(self.project(fused)))
        return hashed
