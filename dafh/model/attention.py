"""Convolutional block attention (CBAM; Woo et al., ECCV 2018), which DAFH puts on its features."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelAttention(nn.Module):
    """Weigh channels by what their average and maximum say (Woo et al., §3, eq. 2).

    Maps ``[N, C, H, W]`` to weights ``[N, C, 1, 1]`` in (0, 1).
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        hidden = max(8, channels // reduction)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the weights of `features`' channels."""
        average = features.mean(dim=(2, 3))
        maximum = features.amax(dim=(2, 3))
        weights = torch.sigmoid(self.mlp(average) + self.mlp(maximum))
        return weights[:, :, None, None]


class SpatialAttention(nn.Module):
    """Weigh positions by the mean and maximum over channels (Woo et al., §3, eq. 3).

    Maps ``[N, C, H, W]`` to weights ``[N, 1, H, W]`` in (0, 1).
    """

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, features: Tensor) -> Tensor:
        """Return the weights of `features`' positions."""
        pooled = torch.cat(
            [features.mean(dim=1, keepdim=True), features.amax(dim=1, keepdim=True)], dim=1
        )
        return torch.sigmoid(self.norm(self.convolution(pooled)))


class CBAM(nn.Module):
    """Channel attention, then spatial attention, on the same features.

    Maps ``[N, C, H, W]`` to the attended features ``[N, C, H, W]`` and the spatial weights
    ``[N, 1, H, W]`` in (0, 1).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels)
        self.spatial = SpatialAttention()

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the attended features and where they look."""
        features = features * self.channel(features)
        where = self.spatial(features)
        return features * where, where


class Unattended(nn.Module):
    """In CBAM's place where there is to be none: features pass, and every position weighs 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``[N, C, H, W]`` unchanged and ones ``[N, 1, H, W]``."""
        return features, torch.ones_like(features[:, :1])
