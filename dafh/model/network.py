"""The whole network: uint8 image in; hash outputs of every length, class logits, saliency out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple, Self

import torch
from monai.networks.nets import EfficientNetBNFeatures
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional

from dafh.codes import BITS
from dafh.model.attention import CBAM, Unattended
from dafh.model.hashing import HashHead

#: Channels of the EfficientNet-B0 stages at strides 8, 16 and 32 (our choice of layers: the paper
#: fuses layers of different depth and does not, to us, say which).
STAGES = {2: 40, 3: 112, 4: 320}
STRIDES = {2: 8, 3: 16, 4: 32}
FINEST_STRIDE = 8
DEEPEST = 4
#: Width of the vector in which the stages meet (our choice).
FUSED = 512
#: Grey levels; keeps a nearly uniform image from being blown up to noise.
LEAST_DEVIATION = 4.0


class Explanation(StrEnum):
    """What the saliency output shows."""

    #: Where the deepest and finest spatial attention agree (version 1). Bright spots lower it.
    ATTENTION = "attention"
    #: What each position adds to the logit of the predicted class: Grad-CAM (Selvaraju et al.,
    #: ICCV 2017) over all stages, whose gradient is known in closed form here.
    CONTRIBUTION = "contribution"


class Architecture(BaseModel):
    """What a network is made of; the defaults are version 1's, the others are for ablations."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: CBAM on each stage; without it the features pass as they are and saliency is 1 everywhere.
    attention: bool = True
    #: Stages of different depth meet; without it the hash heads see the deepest alone.
    fusion: bool = True
    #: Ptanh with a learnt steepness; without it plain tanh.
    ptanh: bool = True
    #: What the saliency output shows.
    explanation: Explanation = Explanation.ATTENTION
    #: Leading groups of EfficientNet blocks, stem included, that keep the weights they start with.
    frozen: int = 0
    #: Code lengths with a head of their own.
    bits: tuple[int, ...] = BITS


class Outputs(NamedTuple):
    """What the network says of ``N`` images, in the order of the served graph's outputs."""

    #: bits -> hash output, float32 ``[N, bits]`` in (-1, 1).
    hashes: dict[int, Tensor]
    #: float32 ``[N, classes]``.
    logits: Tensor
    #: float32 ``[N, S/8, S/8]`` in [0, 1], see `Explanation`.
    saliency: Tensor
    #: float32 ``[N, FUSED]``: what the hash heads read; not served.
    fused: Tensor


class Dafh(nn.Module):
    """Deep Attention Fusion Hashing (Wu et al., Bioengineering 2024, 11(7):673), our reading.

    Input ``[N, 1, S, S]``, uint8 or float in [0, 255], S a multiple of 32; normalisation is part
    of the network, so that images travel as bytes.

    Parameters
    ----------
    classes
        Number of classes of the auxiliary classifier.
    architecture
        What the network is made of.
    """

    def __init__(self, classes: int, architecture: Architecture | None = None) -> None:
        super().__init__()
        self.architecture = architecture or Architecture()
        self.stages = STAGES if self.architecture.fusion else {DEEPEST: STAGES[DEEPEST]}
        self.backbone = _backbone()
        block = CBAM if self.architecture.attention else Unattended
        self.attention = nn.ModuleList(block(channels) for channels in self.stages.values())
        self.project = nn.ModuleList(
            nn.Linear(channels, FUSED // 2) for channels in self.stages.values()
        )
        met = len(self.stages) * FUSED // 2
        self.fuse = nn.Sequential(
            nn.BatchNorm1d(met),
            nn.Linear(met, FUSED),
            nn.BatchNorm1d(FUSED),
            nn.ReLU(inplace=True),
        )
        self.heads = nn.ModuleList(
            HashHead(FUSED, bits, learnt=self.architecture.ptanh) for bits in self.architecture.bits
        )
        self.classifier = nn.Linear(FUSED, classes)
        self.kept = _leading(self.backbone, self.architecture.frozen)
        for module in self.kept:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self.kept:
            module.eval()
        return self

    def forward(self, images: Tensor) -> Outputs:
        """Encode ``[N, 1, S, S]`` images."""
        seen: list[Seen] = []
        fused = self.meet(self._attend(standardise(images), seen))
        return self.tell(fused, seen)

    def tell(self, fused: Tensor, seen: Sequence[Seen] = ()) -> Outputs:
        """Return what fused features ``[N, FUSED]`` say; without `seen`, saliency is empty."""
        looks = _enlarged(seen[-1].where, 4) if seen else fused.new_empty(0)
        hashes = {
            bits: head(fused) for bits, head in zip(self.architecture.bits, self.heads, strict=True)
        }
        logits = self.classifier(fused)
        if not seen:
            saliency = looks
        elif self.architecture.explanation is Explanation.CONTRIBUTION:
            saliency = self._contribution(fused, logits, seen)
        else:
            fine = seen[0].where if self.architecture.fusion else looks
            saliency = (looks * fine).squeeze(1)
        return Outputs(hashes=hashes, logits=logits, saliency=saliency, fused=fused)

    def _contribution(self, fused: Tensor, logits: Tensor, seen: Sequence[Seen]) -> Tensor:
        """Return what each position adds to the predicted class over the average class.

        The gradient of a logit by the pooled features, step by step back through classifier, ReLU,
        batch norms and projections as they are in evaluation mode; ``[N, S/8, S/8]``, the largest
        of each image 1.
        """
        first, linear, second, _ = self.fuse
        weights = self.classifier.weight
        gradient = weights[logits.argmax(dim=1)] - weights.mean(dim=0)
        gradient = gradient * (fused > 0) * _slope(second)
        gradient = (gradient @ linear.get_parameter("weight")) * _slope(first)
        places = []
        for part, project, stage in zip(
            torch.split(gradient, FUSED // 2, dim=1), self.project, seen, strict=True
        ):
            by_channel = (part @ project.get_parameter("weight"))[:, :, None, None]
            # Pooling is a mean, so every stage counts by what it adds to an area, however coarse.
            added = (by_channel * stage.attended).sum(dim=1, keepdim=True)
            factor = stage.stride // FINEST_STRIDE
            places.append(added if factor == 1 else _enlarged(added, factor))
        total = torch.stack(places).sum(dim=0).squeeze(1).relu()
        return total / (total.amax(dim=(1, 2), keepdim=True) + 1e-12)

    def meet(self, pooled: Iterable[Tensor]) -> Tensor:
        """Fuse the stages' pooled features ``[N, channels]`` to ``[N, FUSED]``."""
        projected = [
            project(features) for features, project in zip(pooled, self.project, strict=True)
        ]
        fused: Tensor = self.fuse(torch.cat(projected, dim=1))
        return fused

    def pool(self, images: Tensor) -> list[Tensor]:
        """Return each stage's attended features of ``[N, 1, S, S]`` images, ``[N, channels]``."""
        return list(self._attend(standardise(images), []))

    def _attend(self, normal: Tensor, seen: list[Seen]) -> Iterator[Tensor]:
        """Yield each stage's pooled features; what they were pooled from is added to `seen`."""
        stages = self.backbone(normal)
        for index, attend in zip(self.stages, self.attention, strict=True):
            attended, where = attend(stages[index])
            seen.append(Seen(attended, where, STRIDES[index]))
            yield attended.mean(dim=(2, 3))


class Seen(NamedTuple):
    """What one stage sees."""

    #: float32 ``[N, C, H, W]``.
    attended: Tensor
    #: float32 ``[N, 1, H, W]`` in (0, 1): spatial attention.
    where: Tensor
    stride: int


def _enlarged(maps: Tensor, factor: int) -> Tensor:
    return functional.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)


def _slope(norm: nn.Module) -> Tensor:
    """Return the factor of a batch norm in evaluation mode, one per feature."""
    assert isinstance(norm, nn.BatchNorm1d)  # noqa: S101 - for the type checker
    assert norm.running_var is not None  # noqa: S101 - ours track their statistics
    return norm.weight / torch.sqrt(norm.running_var + norm.eps)


def _backbone() -> nn.Module:
    backbone = EfficientNetBNFeatures(
        "efficientnet-b0", pretrained=False, in_channels=1, spatial_dims=2
    )
    for unused in ("_conv_head", "_conv_head_padding", "_bn1", "_avg_pooling", "_dropout", "_fc"):
        delattr(backbone, unused)
    # The memory-efficient form is an autograd function, which ONNX cannot take.
    backbone.set_swish(memory_efficient=False)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            # MONAI's 0.01 needs far longer than our training to reach useful statistics.
            module.momentum = 0.1
        elif isinstance(module, nn.Conv2d) and module.groups > 1:
            module.__class__ = DepthwiseConv2d
    return backbone


def _leading(backbone: nn.Module, groups: int) -> list[nn.Module]:
    """Return stem and first groups of blocks; as a list, so that they are registered only once."""
    if not groups:
        return []
    return [backbone.get_submodule(name) for name in ("_conv_stem", "_bn0")] + [
        backbone.get_submodule(f"_blocks.{group}") for group in range(groups)
    ]


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution that trains in full precision, whatever the rest is computed in.

    On CPUs its bfloat16 gradient is so slow that the whole training step takes 1.4 times as long.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that torch gave it
        """Convolve ``[N, C, H, W]``."""
        if not (torch.is_grad_enabled() and torch.is_autocast_enabled(input.device.type)):
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


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
