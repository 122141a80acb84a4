"""The terms that DAFH's own objective is made of; each sees one code length.

A term is a module made for ``(classes, bits)``; it is called with the hash output float32
``[N, bits]``, all outputs and the targets, and returns a scalar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import CosFaceLoss, TripletMarginLoss
from pytorch_metric_learning.miners import TripletMarginMiner
from torch import Tensor, nn
from torch.nn import functional

from dafh.model.network import Outputs

#: Temperatures of the softmax over a batch (our choice).
VIEWS_TEMPERATURE = 0.15
SHARP_VIEWS_TEMPERATURE = 0.07
NEIGHBOURS_TEMPERATURE = 0.1
#: Weight of images without a class beside those with one (Hendrycks et al., ICLR 2019, §4.1).
EXPOSURE = 0.5
#: The same where what is without a class is to keep apart as well: exposure draws it together.
LITTLE_EXPOSURE = 0.05


@dataclass(frozen=True, slots=True)
class Targets:
    """What ``N`` views show."""

    #: int64 ``[N]``: class; -1 where an image has none and only its views count.
    labels: Tensor
    #: int64 ``[N]``: class of the image blended in; the same as `labels` where none is.
    blended: Tensor
    #: Share of `labels` in the blend; 1 where nothing is blended.
    share: float
    #: int64 ``[N]``: which source image each is a view of.
    images: Tensor

    def to(self, device: torch.device) -> Targets:
        """Return the same where the network is."""
        return Targets(
            self.labels.to(device), self.blended.to(device), self.share, self.images.to(device)
        )

    def mixed(self, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """Return a loss of labels over the labelled views, shared between the two classes."""
        known = self.labels >= 0
        value = loss(self.labels[known])
        if self.share < 1:
            value = self.share * value + (1 - self.share) * loss(self.blended[known])
        return value

    @property
    def pure(self) -> Tensor:
        """Bool ``[N]``: labelled, and nothing of another class blended in."""
        return (self.labels >= 0) & (self.labels == self.blended)


class Classes(nn.Module):
    """Cosine margin on the hash output, with learnt class centres.

    The OrthoHash idea (Hoe et al., NeurIPS 2021, §3) as CosFace (Wang et al., CVPR 2018).
    """

    def __init__(self, classes: int, bits: int) -> None:
        super().__init__()
        self.margin = CosFaceLoss(classes, bits, margin=0.25, scale=12)

    def forward(self, hashed: Tensor, _: Outputs, targets: Targets) -> Tensor:
        """Return the loss of the labelled views."""
        known = hashed[targets.labels >= 0]
        return targets.mixed(lambda labels: self.margin(known, labels))


class Classifier(nn.Module):
    """Cross-entropy of the auxiliary classifier; the same for every code length.

    An image without a class is to look like none in particular (outlier exposure; Hendrycks et al.,
    ICLR 2019): it costs the cross-entropy to the uniform distribution.
    """

    def __init__(self, _classes: int, _bits: int, exposure: float = EXPOSURE) -> None:
        super().__init__()
        self.exposure = exposure

    def forward(self, _: Tensor, outputs: Outputs, targets: Targets) -> Tensor:
        """Return the loss."""
        known = targets.labels >= 0
        logits = outputs.logits.float()
        loss = targets.mixed(
            lambda labels: functional.cross_entropy(logits[known], labels, label_smoothing=0.1)
        )
        if known.all():
            return loss
        return loss + self.exposure * -logits[~known].log_softmax(dim=1).mean()


class Triplet(nn.Module):
    """Semi-hard triplets by cosine: the paper's "deep triplet hashing network"."""

    def __init__(self, _classes: int, _bits: int) -> None:
        super().__init__()
        self.loss = TripletMarginLoss(margin=0.2, distance=CosineSimilarity())
        self.miner = TripletMarginMiner(
            margin=0.2, type_of_triplets="semihard", distance=CosineSimilarity()
        )

    def forward(self, hashed: Tensor, _: Outputs, targets: Targets) -> Tensor:
        """Return the loss of views that show one class."""
        known, labels = hashed[targets.pure], targets.labels[targets.pure]
        loss: Tensor = self.loss(known, labels, self.miner(known, labels))
        return loss


class Quantisation(nn.Module):
    """How far the hash output is from its signs (the paper's; as a mean absolute gap: ours)."""

    def __init__(self, _classes: int, _bits: int) -> None:
        super().__init__()

    def forward(self, hashed: Tensor, _: Outputs, _targets: Targets) -> Tensor:
        """Return the mean gap, in [0, 1]."""
        return (1 - hashed.abs()).mean()


class Views(nn.Module):
    """Two views of one image against all other images (NT-Xent; Chen et al., ICML 2020, §2.1).

    Keeps single images apart within a class, so that a changed copy still finds its source. Written
    as one cross-entropy over the batch; only views whose image is seen twice ask.
    """

    def __init__(self, _classes: int, _bits: int, temperature: float = VIEWS_TEMPERATURE) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, hashed: Tensor, _: Outputs, targets: Targets) -> Tensor:
        """Return the loss; 0 where no image is seen twice."""
        unit = functional.normalize(hashed)
        own = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
        logits = (unit @ unit.T / self.temperature).masked_fill(own, -torch.inf)
        same = (targets.images[:, None] == targets.images[None, :]) & ~own
        asks = same.any(dim=1)
        if not asks.any():
            return hashed.new_zeros(())
        return functional.cross_entropy(logits[asks], same[asks].int().argmax(dim=1))


class Neighbours(nn.Module):
    """Codes have the neighbours that the float features have (our term).

    Cross-entropy, image by image, between the softmax over the batch of the cosines of the fused
    features (the teacher: no gradient) and that of the signs of the hash output, which the gradient
    passes straight through.
    """

    def __init__(self, _classes: int, _bits: int) -> None:
        super().__init__()

    def forward(self, hashed: Tensor, outputs: Outputs, _: Targets) -> Tensor:
        """Return the loss."""
        own = torch.eye(len(hashed), dtype=torch.bool, device=hashed.device)
        signs = straight_through(hashed)
        codes = signs @ signs.T / hashed.shape[1] / NEIGHBOURS_TEMPERATURE
        with torch.no_grad():
            unit = functional.normalize(outputs.fused.float())
            floats = (unit @ unit.T / NEIGHBOURS_TEMPERATURE).masked_fill(own, -torch.inf)
            teacher = floats.softmax(dim=1)
        student = codes.masked_fill(own, -torch.inf).log_softmax(dim=1).masked_fill(own, 0.0)
        return -(teacher * student).sum(dim=1).mean()


def straight_through(hashed: Tensor) -> Tensor:
    """Return the signs of a hash output; the gradient passes as if there were none."""
    return hashed + (hashed.sign() - hashed).detach()


#: Name in a recipe -> term.
OWN: dict[str, Callable[[int, int], nn.Module]] = {
    "classes": Classes,
    "classifier": Classifier,
    "classifier_lenient": partial(Classifier, exposure=LITTLE_EXPOSURE),
    "triplet": Triplet,
    "quantisation": Quantisation,
    "views": Views,
    "views_sharp": partial(Views, temperature=SHARP_VIEWS_TEMPERATURE),
    "neighbours": Neighbours,
}
