"""The screened projection gives the plain one's numbers: whatever it skips is zero, and the rest is not rounded."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the extra encode is not installed: no torch")

from bridge.encode.torch_projection import Projection, _filled, _Screen
from tests.models import torch

SIZE, VOCABULARY = 96, 5000


def batch(seed: int, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states [5, 40, 96], a mask with padding, weights and a bias that leave about 2 % active."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(5, 40, SIZE, generator=generator) * scale
    mask = (torch.arange(40) < torch.tensor([40, 31, 17, 2, 1])[:, None]).long()
    weight = torch.randn(VOCABULARY, SIZE, generator=generator) * 0.3
    bias = torch.randn(VOCABULARY, generator=generator) - 10.0 * scale
    return hidden, mask, weight, bias


def plain(
    hidden: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, pooling: str
) -> torch.Tensor:
    """The card's formula, on all logits at once."""
    weights = torch.log1p(torch.relu(hidden @ weight.T + bias)) * mask.unsqueeze(-1)
    return weights.amax(1) if pooling == "max" else weights.sum(1)


@pytest.mark.parametrize("pooling", ["max", "sum"])
@pytest.mark.parametrize("screened", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_the_formula(pooling: str, screened: bool, seed: int) -> None:
    hidden, mask, weight, bias = batch(seed)
    projection = Projection(weight, bias, pooling=pooling, activation="log1p_relu", screened=screened)
    found = projection.pool(hidden, mask)
    expected = plain(hidden, mask, weight, bias, pooling)
    assert 0.001 < (expected > 0).float().mean() < 0.1
    assert torch.equal(found > 0, expected > 0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_the_bound_holds(scale: float) -> None:
    hidden, _, weight, _ = batch(7, scale)
    bound = _Screen(weight).bound(hidden)
    exact = (hidden.double() @ weight.double().T).amax(1)
    assert (bound.double() >= exact).all()
    # And it is of use: within a few hundredths of what the numbers are like.
    assert (bound - exact).mean() < 0.05 * exact.std() * 5


def test_a_model_that_is_not_sparse_goes_without() -> None:
    hidden, mask, weight, bias = batch(1)
    projection = Projection(weight, bias * 0, pooling="max", activation="relu", screened=True)
    for _ in range(2):
        found = projection.pool(hidden, mask)
        expected = torch.where(mask.unsqueeze(-1) == 1, torch.relu(hidden @ weight.T), 0).amax(1)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    assert projection._screen is None


def test_no_mask_and_no_bias() -> None:
    hidden, _, weight, _ = batch(2)
    shifted = hidden.clone()
    for screened in (True, False):
        found = Projection(weight, None, pooling="max", activation="log1p_log1p_relu", screened=screened).pool(
            shifted, None
        )
        expected = torch.log1p(torch.log1p(torch.relu(hidden @ weight.T))).amax(1)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_products_come_in_few_shapes() -> None:
    sizes = [_filled(torch.ones(count, 2)).shape[0] for count in range(1, 1025)]
    assert len(set(sizes)) <= 16
    assert all(count <= size < max(count + 128, 2 * count) for count, size in enumerate(sizes, start=1))
    assert torch.equal(_filled(torch.ones(3, 2)), torch.tensor([[1.0, 1], [1, 1], [1, 1], [0, 0]]))
