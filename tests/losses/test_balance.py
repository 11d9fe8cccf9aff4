import math

import pytest
import torch

from colmrl.losses.balance import by_uncertainty, gradnorm_step, shares


def test_views_share_their_heads_weight():
    share = shares(["single@8", "single@4", "multi@8"], {"single@4": 3.0}, {"single": 2.0, "multi": 0.5})
    assert share.tolist() == [0.5, 1.5, 0.5]
    assert shares(["single@8", "single@4"], {}, {"single": 1.0}).tolist() == [0.5, 0.5]
    assert shares(["single@8"], {"single@8": 0.0}, {"single": 1.0}).tolist() == [0.0]


def test_uncertainty_is_its_formula_and_its_best_variance_is_the_loss():
    losses, share = torch.tensor([2.0, 0.5]), torch.tensor([0.25, 1.0])
    value = by_uncertainty(losses, share, torch.tensor([0.3, -0.7]))
    expected = 0.25 * (math.exp(-0.3) * 2 + 0.15) + math.exp(0.7) * 0.5 - 0.35
    assert value.item() == pytest.approx(expected)
    best = (2 * losses).log().requires_grad_()  # d/ds (e^-s·L + s/2) = 0
    by_uncertainty(losses, share, best).backward()
    assert best.grad is not None and best.grad.abs().max() < 1e-6


def test_gradnorm_gives_more_to_what_has_learnt_less_and_keeps_the_sum():
    weights, first = torch.ones(3), torch.tensor([2.0, 2.0, 2.0])
    moved = gradnorm_step(weights, torch.ones(3), torch.tensor([1.0, 0.1, 1.9]), first)
    assert moved[2] > moved[0] > moved[1] - 1e-6 and moved.sum().item() == pytest.approx(3.0)


def test_gradnorm_moves_against_the_gradient_of_its_own_loss():
    norms, losses, first = torch.tensor([3.0, 1.0, 0.5]), torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1.0, 2.0, 1.5])
    weights = torch.tensor([0.8, 1.2, 1.0], requires_grad=True)
    progress = losses / first
    target = ((weights * norms).mean() * (progress / progress.mean()) ** 1.5).detach()
    (weights * norms - target).abs().sum().backward()
    assert weights.grad is not None
    step = weights.detach() - 0.025 * weights.grad / norms.mean()
    expected = step * (3 / step.sum())
    assert torch.allclose(gradnorm_step(weights.detach(), norms, losses, first), expected)
