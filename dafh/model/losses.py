"""The training objective: cosine-margin classes on every code, triplets, quantisation, views."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import CosFaceLoss, NTXentLoss, TripletMarginLoss
from pytorch_metric_learning.miners import TripletMarginMiner
from torch import Tensor, nn
from torch.nn import functional

from dafh.codes import BITS
from dafh.model.network import Outputs


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each term counts (our choice; the paper's are not known to us)."""

    classes: float = 1.0
    classifier: float = 0.5
    triplet: float = 0.5
    quantisation: float = 0.05
    #: Two views of one image against all other images: keeps single images apart within a class,
    #: so that a changed copy still finds its source.
    views: float = 0.3


class Objective(nn.Module):
    """Sum of the loss terms over all code lengths.

    Cosine margin on the hash output is the OrthoHash idea (Hoe et al., NeurIPS 2021) with learnt
    class centres; triplets and quantisation are the paper's ("deep triplet hashing network").
    """

    def __init__(self, classes: int, weights: Weights) -> None:
        super().__init__()
        self.weights = weights
        self.margins = nn.ModuleList(
            CosFaceLoss(classes, bits, margin=0.25, scale=12) for bits in BITS
        )
        self.triplet = TripletMarginLoss(margin=0.2, distance=CosineSimilarity())
        self.miner = TripletMarginMiner(
            margin=0.2, type_of_triplets="semihard", distance=CosineSimilarity()
        )
        self.views = NTXentLoss(temperature=0.1)

    def forward(self, outputs: Outputs, labels: Tensor, images: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms; their sum is the loss.

        Parameters
        ----------
        outputs
            Of ``N`` images.
        labels
            int64 ``[N]``: class; -1 where an image has none and only its views count.
        images
            int64 ``[N]``: which source image each is a view of.
        """
        labelled = labels >= 0
        terms: dict[str, Tensor] = {
            "classifier": self.weights.classifier
            * functional.cross_entropy(
                outputs.logits[labelled], labels[labelled], label_smoothing=0.1
            )
        }
        for name in ("classes", "triplet", "quantisation", "views"):
            terms[name] = outputs.logits.new_zeros(())
        share = 1 / len(BITS)
        for bits, margin in zip(BITS, self.margins, strict=True):
            every = outputs.hashes[bits].float()
            hashed, known = every[labelled], labels[labelled]
            terms["classes"] += share * self.weights.classes * margin(hashed, known)
            triplets = self.miner(hashed, known)
            terms["triplet"] += share * self.weights.triplet * self.triplet(hashed, known, triplets)
            terms["quantisation"] += share * self.weights.quantisation * (1 - every.abs()).mean()
            terms["views"] += share * self.weights.views * self.views(every, images)
        return terms


def total(terms: dict[str, Tensor]) -> Tensor:
    """Sum the terms of an objective."""
    return torch.stack(list(terms.values())).sum()
