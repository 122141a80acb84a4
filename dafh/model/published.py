"""Objectives of published deep hashing methods, as terms: what DAFH is compared with.

Each is written from its paper for the hash output of our head, in (-1, 1), on images of one class.
Where a method prescribes an activation of its own (HashNet's continuation), Ptanh stands for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.linalg import hadamard
from torch import Tensor, nn
from torch.nn import functional

from dafh.model.network import Outputs
from dafh.model.terms import Targets, straight_through

#: Of the class targets that CSQ, DPN and OrthoHash fix before training.
TARGET_SEED = 20_261_126


def class_targets(classes: int, bits: int, *, orthogonal: bool = True) -> Tensor:
    """Return a binary target for each class, float32 ``[classes, bits]`` of -1 and 1.

    Rows of a Hadamard matrix and their opposites where `bits` is a power of two and there are
    enough; else every bit is drawn by a coin (Yuan et al., CVPR 2020, §3.2, algorithm 1).
    """
    if orthogonal and bits & (bits - 1) == 0 and classes <= 2 * bits:
        rows = hadamard(bits)
        return torch.from_numpy(np.concatenate([rows, -rows])[:classes].astype(np.float32))
    coins = torch.Generator().manual_seed(TARGET_SEED + bits)
    return torch.randint(0, 2, (classes, bits), generator=coins).float() * 2 - 1


def _pure(hashed: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    return hashed[targets.pure], targets.labels[targets.pure]


def _pairs(products: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return scaled inner products and similarity of all pairs of different images."""
    apart = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    same = (labels[:, None] == labels[None, :]).float()
    return products[apart], same[apart]


class Dpsh(nn.Module):
    """Pairwise likelihood, and the gap to the signs (Li et al., IJCAI 2016, eq. 4; eta 0.1)."""

    def __init__(self, _classes: int, _bits: int, eta: float = 0.1) -> None:
        super().__init__()
        self.eta = eta

    def forward(self, hashed: Tensor, _: Outputs, targets: Targets) -> Tensor:
        """Return the loss."""
        known, labels = _pure(hashed, targets)
        products, same = _pairs(known @ known.T / 2, labels)
        likelihood = (functional.softplus(products) - same * products).mean()
        return likelihood + self.eta * (known - known.sign()).square().mean()


class HashNet(nn.Module):
    """Weighted pairwise likelihood (Cao et al., ICCV 2017, eq. 4; alpha 10 / bits)."""

    def __init__(self, _classes: int, bits: int) -> None:
        super().__init__()
        self.alpha = 10 / bits

    def forward(self, hashed: Tensor, _: Outputs, targets: Targets) -> Tensor:
        """Return the loss."""
        known, labels = _pure(hashed, targets)
        products, same = _pairs(self.alpha * known @ known.T, labels)
        alike = same.mean().clamp(1e-3, 1 - 1e-3)
        weights = torch.where(same > 0, 1 / alike, 1 / (1 - alike))
        return (weights * (functional.softplus(products) - same * products)).mean() / 2


class GreedyHash(nn.Module):
    """A classifier on the signs themselves (Su et al., NeurIPS 2018, §3.2; alpha 0.1)."""

    def __init__(self, classes: int, bits: int, alpha: float = 0.1) -> None:
        super().__init__()
        self.classifier = nn.Linear(bits, classes)
        self.alpha = alpha

    def forward(self, hashed: Tensor, _: Outputs, targets: Targets) -> Tensor:
        """Return the loss."""
        known, labels = _pure(hashed, targets)
        loss = functional.cross_entropy(self.classifier(straight_through(known)), labels)
        return loss + self.alpha * (known.abs() - 1).abs().pow(3).mean()


class Csq(nn.Module):
    """Central similarity: each bit towards its class's centre (Yuan et al., CVPR 2020, eq. 4)."""

    def __init__(self, classes: int, bits: int, weight: float = 1e-4) -> None:
        super().__init__()
        self.register_buffer("centres", class_targets(classes, bits))
        self.weight = weight

    def forward(self, hashed: Tensor, _: Outputs, targets: Targets) -> Tensor:
        """Return the loss."""
        known, labels = _pure(hashed, targets)
        centres = self.get_buffer("centres")[labels]
        central = functional.binary_cross_entropy(
            ((known + 1) / 2).clamp(1e-6, 1 - 1e-6), (centres + 1) / 2
        )
        return central + self.weight * (known.abs() - 1).cosh().log().mean()


class Dpn(nn.Module):
    """Deep polarisation: a hinge on every bit (Fan et al., IJCAI 2020, eq. 3; margin 1)."""

    def __init__(self, classes: int, bits: int) -> None:
        super().__init__()
        self.register_buffer("targets", class_targets(classes, bits, orthogonal=False))

    def forward(self, hashed: Tensor, _: Outputs, targets: Targets) -> Tensor:
        """Return the loss."""
        known, labels = _pure(hashed, targets)
        return (1 - known * self.get_buffer("targets")[labels]).clamp(min=0).mean()


class OrthoHash(nn.Module):
    """Cosine margin to fixed binary targets (Hoe et al., NeurIPS 2021, eq. 5; margin 0.2)."""

    def __init__(self, classes: int, bits: int, margin: float = 0.2) -> None:
        super().__init__()
        self.register_buffer("targets", functional.normalize(class_targets(classes, bits)))
        self.margin = margin
        self.scale = math.sqrt(2) * math.log(max(classes - 1, 2))

    def forward(self, hashed: Tensor, _: Outputs, targets: Targets) -> Tensor:
        """Return the loss."""
        known, labels = _pure(hashed, targets)
        cosines = functional.normalize(known) @ self.get_buffer("targets").T
        own = functional.one_hot(labels, cosines.shape[1]) * self.margin
        return functional.cross_entropy(self.scale * (cosines - own), labels)


#: Name in a recipe -> term.
PUBLISHED: dict[str, Callable[[int, int], nn.Module]] = {
    "dpsh": Dpsh,
    "hashnet": HashNet,
    "greedyhash": GreedyHash,
    "csq": Csq,
    "dpn": Dpn,
    "orthohash": OrthoHash,
}
