"""The training objective: terms from a table, weighted by the recipe."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dafh.model.network import Outputs
from dafh.model.published import PUBLISHED
from dafh.model.terms import OWN, Targets

#: Terms that a recipe may weigh.
TERMS = OWN | PUBLISHED
#: Of these one is enough, whatever the number of code lengths.
OF_THE_IMAGE = frozenset({"classifier", "classifier_lenient"})


class Objective(nn.Module):
    """Sum of weighted terms, those on codes averaged over the code lengths.

    Parameters
    ----------
    classes
        Number of classes.
    bits
        Code lengths.
    weights
        Term -> weight; a term without a weight is not computed.
    """

    def __init__(self, classes: int, bits: tuple[int, ...], weights: dict[str, float]) -> None:
        super().__init__()
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.terms = nn.ModuleDict(
            {
                name: nn.ModuleDict(
                    {str(length): TERMS[name](classes, length) for length in self._of(name, bits)}
                )
                for name in self.weights
            }
        )

    @staticmethod
    def _of(name: str, bits: tuple[int, ...]) -> tuple[int, ...]:
        return bits[:1] if name in OF_THE_IMAGE else bits

    def forward(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """Return the weighted terms; their sum is the loss.

        Parameters
        ----------
        outputs
            Of ``N`` views.
        targets
            What they show.
        """
        lengths = tuple(outputs.hashes)
        weighted: dict[str, Tensor] = {}
        for name, weight in self.weights.items():
            each = [
                self.terms.get_submodule(f"{name}.{bits}")(
                    outputs.hashes[bits].float(), outputs, targets
                )
                for bits in self._of(name, lengths)
            ]
            weighted[name] = weight * torch.stack(each).mean()
        return weighted


def total(terms: dict[str, Tensor]) -> Tensor:
    """Sum the terms of an objective."""
    return torch.stack(list(terms.values())).sum()
