from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from dafh.codes import BITS
from dafh.model.losses import OF_THE_IMAGE, TERMS, Objective, total
from dafh.model.network import FUSED, Outputs
from dafh.model.published import PUBLISHED, Csq, Dpn, Dpsh, HashNet, OrthoHash, class_targets
from dafh.model.terms import VIEWS_TEMPERATURE, Classifier, Neighbours, Targets, Views


def outputs(count: int) -> Outputs:
    random = torch.Generator().manual_seed(0)
    return Outputs(
        {bits: torch.randn(count, bits, generator=random).tanh().requires_grad_() for bits in BITS},
        torch.randn(count, 3, generator=random, requires_grad=True),
        torch.zeros(count, 4, 4),
        torch.randn(count, FUSED, generator=random).relu().requires_grad_(),
    )


def targets(labels: list[int], images: list[int] | None = None) -> Targets:
    known = torch.tensor(labels)
    return Targets(known, known.clone(), 1.0, torch.tensor(images or list(range(len(labels)))))


@pytest.mark.parametrize("term", TERMS)
def test_every_term_teaches_what_it_reads(term: str) -> None:
    given = outputs(8)
    objective = Objective(3, BITS, {term: 1.0})
    shown = targets([0, 0, 1, 1, 2, 2, -1, 0], [0, 1, 2, 3, 4, 5, 6, 0])
    terms = objective(given, shown)
    assert list(terms) == [term]
    terms[term].backward()
    read = [given.logits] if term in OF_THE_IMAGE else list(given.hashes.values())
    assert all(value.grad is not None and bool(value.grad.abs().sum() > 0) for value in read)
    # The teacher of the neighbours is not taught by them.
    assert given.fused.grad is None


# The margin of "classes" is a library's, which makes tensors by default and then moves them.
@pytest.mark.parametrize("term", sorted(TERMS.keys() - {"classes"}))
def test_every_term_computes_where_its_inputs_are(term: str) -> None:
    """What a term makes must not be where torch puts it by default: here `meta`, for a GPU."""
    objective = Objective(3, BITS, {term: 1.0})
    given, shown = outputs(8), targets([0, 0, 1, 1, 2, 2, -1, 0], [0, 1, 2, 3, 4, 5, 6, 0])
    with torch.device("meta"):
        terms = objective(given, shown)
    assert terms[term].device.type == "cpu"


def test_targets_follow_the_network() -> None:
    moved = targets([0, 1]).to(torch.device("meta"))
    assert {part.device.type for part in (moved.labels, moved.blended, moved.images)} == {"meta"}


@pytest.mark.parametrize("term", PUBLISHED)
def test_codes_of_one_class_each_cost_less_than_codes_at_random(term: str) -> None:
    labels = [0, 0, 1, 1, 2, 2]
    centres = class_targets(3, 64, orthogonal=term != "dpn")
    learnt = TERMS[term](3, 64)
    if term == "greedyhash":
        with torch.no_grad():
            next(learnt.parameters()).copy_(centres)
    right = 0.99 * centres[labels]
    random = torch.rand(6, 64, generator=torch.Generator().manual_seed(4)) * 2 - 1
    given = outputs(6)
    assert learnt(right, given, targets(labels)) < learnt(random, given, targets(labels))


def test_a_term_without_a_weight_is_not_computed() -> None:
    assert Objective(3, BITS, {"views": 0.0}).weights == {}


def test_an_image_without_a_class_is_to_look_like_none_in_particular() -> None:
    term, shown = Classifier(3, 16), targets([0, -1])
    even, sure = (
        outputs(2)._replace(logits=torch.tensor([[4.0, 0.0, 0.0], second]))
        for second in ([1.0, 1.0, 1.0], [9.0, 0.0, 0.0])
    )
    hashed = torch.zeros(2, 16)
    assert term(hashed, even, shown) < term(hashed, sure, shown)


def test_weights_scale_their_terms() -> None:
    given, shown = outputs(8), targets([0, 0, 1, 1, 2, 2, 1, 0])
    one, two = (Objective(3, BITS, {"dpsh": weight})(given, shown) for weight in (1.0, 2.0))
    assert torch.isclose(2 * total(one), total(two))


def test_the_loss_of_a_blend_is_shared_as_the_images_are() -> None:
    given = outputs(4)
    objective = Objective(3, BITS, {"classes": 1.0})
    ends = [objective(given, targets(labels))["classes"] for labels in ([0, 1, 2, 0], [1, 2, 0, 2])]
    blend = Targets(torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 0, 2]), 0.3, torch.arange(4))
    assert torch.isclose(objective(given, blend)["classes"], 0.3 * ends[0] + 0.7 * ends[1])


def test_views_are_a_cross_entropy_against_all_other_images() -> None:
    hashed, views = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), Views(3, 2)
    found = views(hashed, outputs(3), targets([0, 0, 0], [7, 8, 7]))
    # Both views of image 7 ask: their pair has cosine 1, the other image 0.
    expected = -math.log(math.exp(1 / VIEWS_TEMPERATURE) / (math.exp(1 / VIEWS_TEMPERATURE) + 1))
    assert found.item() == pytest.approx(expected, rel=1e-3)
    assert views(hashed, outputs(3), targets([0, 0, 0])).item() == 0


def test_codes_with_the_neighbours_of_the_features_cost_least() -> None:
    random = torch.Generator().manual_seed(1)
    fused = functional.normalize(torch.randn(3, FUSED, generator=random)).repeat_interleave(4, 0)
    given = outputs(12)._replace(fused=fused + 0.01 * torch.randn(12, FUSED, generator=random))
    kept = torch.randn(3, 16, generator=random).sign().repeat_interleave(4, dim=0) * 0.9
    lost = kept[torch.randperm(12, generator=random)]
    term = Neighbours(3, 16)
    assert term(kept, given, targets([0] * 12)) < term(lost, given, targets([0] * 12))


def test_targets_are_orthogonal_where_they_can_be() -> None:
    rows = class_targets(21, 64)
    assert torch.equal(rows @ rows.T, 64 * torch.eye(21))
    for bits in (16, 48):
        signs = class_targets(21, bits)
        assert set(signs.ravel().tolist()) == {-1.0, 1.0}
        assert len({tuple(row.tolist()) for row in signs}) == 21


def test_published_losses_are_those_counted_by_hand() -> None:
    hashed = torch.tensor([[0.5, 0.5], [0.5, -0.5]])
    given, same, other = outputs(2), targets([0, 0]), targets([0, 1])

    def softplus(value: float) -> float:
        return math.log1p(math.exp(value))

    # The inner product of the two is 0: both likelihoods are log 2; each bit is 1/2 from its sign.
    assert Dpsh(3, 2)(hashed, given, same).item() == pytest.approx(softplus(0) + 0.1 * 0.25)
    # All pairs are alike: their weight is 1 / 0.999.
    assert HashNet(3, 2)(hashed, given, same).item() == pytest.approx(softplus(0) / 0.999 / 2)
    centres = class_targets(3, 2)
    near = [(h * c + 1) / 2 for h, c in zip(hashed.ravel(), centres[:2].ravel(), strict=True)]
    cross = -sum(math.log(value) for value in near) / 4
    found = Csq(3, 2, weight=0.0)(hashed, given, other).item()
    assert found == pytest.approx(cross, rel=1e-5)
    signs = class_targets(3, 2, orthogonal=False)
    hinge = (1 - hashed * signs[[0, 1]]).clamp(min=0).mean().item()
    assert Dpn(3, 2)(hashed, given, other).item() == pytest.approx(hinge)
    perfect = OrthoHash(3, 2, margin=0.0)
    cosines = [1.0, 0.0, -1.0]
    scale = perfect.scale
    expected = -scale + math.log(sum(math.exp(scale * cosine) for cosine in cosines))
    assert perfect(centres[:1], outputs(1), targets([0])).item() == pytest.approx(expected)
