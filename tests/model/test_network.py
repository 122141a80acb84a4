from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from dafh.codes import BITS
from dafh.model.attention import CBAM
from dafh.model.hashing import HashHead, Ptanh
from dafh.model.network import FUSED, Architecture, Dafh, Explanation, Seen, standardise


@pytest.fixture(scope="module")
def network() -> Dafh:
    torch.manual_seed(0)
    return Dafh(classes=5).eval()


def images(count: int, side: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8, generator=generator)


def test_outputs_have_the_shapes_that_the_contract_names(network: Dafh) -> None:
    outputs = network(images(2))
    assert {bits: tuple(h.shape) for bits, h in outputs.hashes.items()} == {
        bits: (2, bits) for bits in BITS
    }
    assert outputs.logits.shape == (2, 5)
    assert outputs.saliency.shape == (2, 8, 8)
    assert outputs.fused.shape == (2, FUSED)


def test_hash_outputs_and_saliency_stay_in_range(network: Dafh) -> None:
    outputs = network(images(3))
    assert all(h.abs().max() < 1 for h in outputs.hashes.values())
    assert 0 <= outputs.saliency.min() <= outputs.saliency.max() <= 1


def test_a_code_does_not_depend_on_the_rest_of_the_batch(network: Dafh) -> None:
    batch = images(4)
    together = network(batch).hashes[64]
    alone = torch.cat([network(one[None]).hashes[64] for one in batch])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(
    "without", [{}, {"attention": False}, {"fusion": False}, {"ptanh": False}], ids=str
)
def test_every_parameter_learns(without: dict[str, bool]) -> None:
    network = Dafh(5, Architecture.model_validate(without)).train()
    outputs = network(images(4))
    (sum(h.sum() for h in outputs.hashes.values()) + outputs.logits.sum()).backward()
    still = [name for name, value in network.named_parameters() if value.grad is None]
    assert still == []


def test_ptanh_tends_to_the_sign_as_it_steepens() -> None:
    values = torch.tensor([-0.5, -0.01, 0.01, 0.5])
    gaps = [
        (Ptanh(steepness)(values) - values.sign()).abs().max().item()
        for steepness in (1.0, 10.0, 1000.0)
    ]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-6


def test_cbam_weighs_between_zero_and_one() -> None:
    block = CBAM(16).eval()
    features = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(2))
    attended, where = block(features)
    assert attended.shape == features.shape
    assert where.shape == (2, 1, 8, 8)
    assert 0 < where.min() <= where.max() < 1
    channels = block.channel(features)
    assert 0 < channels.min() <= channels.max() < 1


def test_a_hash_head_centres_each_bit() -> None:
    head = HashHead(FUSED, 16).train()
    hashed = head(torch.randn(64, FUSED, generator=torch.Generator().manual_seed(3)) + 5)
    assert hashed.mean(dim=0).abs().max() < 0.2


def test_the_contribution_map_is_the_gradient_that_autograd_finds() -> None:
    torch.manual_seed(0)
    network = Dafh(5, Architecture(explanation=Explanation.CONTRIBUTION)).eval()
    seen: list[Seen] = []
    fused = network.meet(network._attend(standardise(images(1)), seen))
    outputs = network.tell(fused, seen)
    best = outputs.logits[0].argmax()
    added = torch.autograd.grad(
        outputs.logits[0, best] - outputs.logits[0].mean(), [stage.attended for stage in seen]
    )
    side = outputs.saliency.shape[1]
    places = [
        # Autograd's gradient of a mean holds 1 / (H W).
        functional.interpolate(
            (gradient * stage.attended).sum(dim=1, keepdim=True) * gradient.shape[2] ** 2,
            size=side, mode="bilinear", align_corners=False,
        )
        for gradient, stage in zip(added, seen, strict=True)
    ]  # fmt: skip
    expected = torch.stack(places).sum(dim=0).squeeze().relu()
    assert torch.allclose(outputs.saliency[0], expected / expected.max(), atol=1e-3)


def test_without_attention_saliency_is_everywhere_the_same() -> None:
    network = Dafh(5, Architecture(attention=False)).eval()
    assert bool((network(images(1)).saliency == 1).all())


def test_another_window_of_the_same_image_changes_almost_nothing(network: Dafh) -> None:
    grey = images(2).float() * 0.4 + 40
    assert torch.allclose(network(grey).fused, network(grey * 1.3 + 10).fused, atol=0.1)
