"""The whole network: uint8 image in; hash outputs of every length, class logits, saliency out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from monai.networks.nets import EfficientNetBNFeatures
from torch import Tensor, nn
from torch.nn import functional

from dafh.codes import BITS
from dafh.model.attention import CBAM
from dafh.model.hashing import HashHead

#: Channels of the EfficientNet-B0 stages at strides 8, 16 and 32 (our choice of layers: the paper
#: fuses layers of different depth and does not, to us, say which).
STAGES = {2: 40, 3: 112, 4: 320}
#: Width of the vector in which the stages meet (our choice).
FUSED = 512


#: Grey levels; keeps a nearly uniform image from being blown up to noise.
LEAST_DEVIATION = 4.0


class Outputs(NamedTuple):
    """What the network says of ``N`` images, in the order of the served graph's outputs."""

    #: bits -> hash output, float32 ``[N, bits]`` in (-1, 1).
    hashes: dict[int, Tensor]
    #: float32 ``[N, classes]``.
    logits: Tensor
    #: float32 ``[N, S/8, S/8]`` in [0, 1]: where the deepest and finest attention agree.
    saliency: Tensor
    #: float32 ``[N, FUSED]``: what the hash heads read; not served.
    fused: Tensor


class Dafh(nn.Module):
    """Deep Attention Fusion Hashing (Wu et al., Bioengineering 2024, 11(7):673), our reading.

    Input ``[N, 1, S, S]``, uint8 or float in [0, 255], S a multiple of 32; normalisation is part
    of the network, so that images travel as bytes.
    """

    def __init__(self, classes: int, backbone: str = "efficientnet-b0") -> None:
        super().__init__()
        self.backbone = EfficientNetBNFeatures(
            backbone, pretrained=False, in_channels=1, spatial_dims=2
        )
        for unused in (
            "_conv_head",
            "_conv_head_padding",
            "_bn1",
            "_avg_pooling",
            "_dropout",
            "_fc",
        ):
            delattr(self.backbone, unused)
        # The memory-efficient form is an autograd function, which ONNX cannot take.
        self.backbone.set_swish(memory_efficient=False)
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                # MONAI's 0.01 needs far longer than our training to reach useful statistics.
                module.momentum = 0.1
        self.attention = nn.ModuleList(CBAM(channels) for channels in STAGES.values())
        self.project = nn.ModuleList(
            nn.Linear(channels, FUSED // 2) for channels in STAGES.values()
        )
        self.fuse = nn.Sequential(
            nn.BatchNorm1d(len(STAGES) * FUSED // 2),
            nn.Linear(len(STAGES) * FUSED // 2, FUSED),
            nn.BatchNorm1d(FUSED),
            nn.ReLU(inplace=True),
        )
        self.heads = nn.ModuleList(HashHead(FUSED, bits) for bits in BITS)
        self.classifier = nn.Linear(FUSED, classes)

    def forward(self, images: Tensor) -> Outputs:
        """Encode ``[N, 1, S, S]`` images."""
        normal = standardise(images)
        stages = self.backbone(normal)
        pooled: list[Tensor] = []
        looks: list[Tensor] = []
        for index, attend, project in zip(STAGES, self.attention, self.project, strict=True):
            attended, where = attend(stages[index])
            pooled.append(project(attended.mean(dim=(2, 3))))
            looks.append(where)
        fused = self.fuse(torch.cat(pooled, dim=1))
        deep = functional.interpolate(
            looks[-1], scale_factor=4, mode="bilinear", align_corners=False
        )
        return Outputs(
            hashes={bits: head(fused) for bits, head in zip(BITS, self.heads, strict=True)},
            logits=self.classifier(fused),
            saliency=(deep * looks[0]).squeeze(1),
            fused=fused,
        )


def standardise(images: Tensor) -> Tensor:
    """Bring each image to mean 0 and deviation 1 (our choice).

    Another window is, but for what it clips, another offset and slope of the grey levels: this
    makes the network blind to both.

    Parameters
    ----------
    images
        ``[N, 1, S, S]`` grey levels in [0, 255].

    Returns
    -------
    Tensor
        float32 ``[N, 1, S, S]``.
    """
    grey = images.float()
    centred = grey - _mean(grey)
    deviation = _mean(centred.square()).sqrt()
    return centred / (deviation + LEAST_DEVIATION)


def _mean(values: Tensor) -> Tensor:
    """Return the mean of each image, ``[N, 1, 1, 1]``, row by row.

    A runtime that sums tens of thousands of values one after the other in fp32 (ONNX Runtime does)
    is off by so much that hash outputs differ by 1e-4; summed in rows they differ by a fifth.
    """
    return values.mean(dim=3, keepdim=True).mean(dim=2, keepdim=True)
