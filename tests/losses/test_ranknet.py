"""Weighted RankNet against its formula, pair by pair."""

import itertools
import math

import pytest
import torch

from colmrl.losses.ranknet import weighted_ranknet


def by_formula(scores, teacher):
    """FIRST, equation 3, on plain numbers; a mean over the pairs of all lists."""
    costs = []
    for row, taught in zip(scores, teacher, strict=True):
        known = sorted((i for i, value in enumerate(taught) if not math.isnan(value)), key=lambda i: -taught[i])
        rank = {i: place + 1 for place, i in enumerate(known)}
        for i, j in itertools.permutations(known, 2):
            if taught[i] > taught[j]:
                costs.append(math.log1p(math.exp(row[j] - row[i])) / (rank[i] + rank[j]))
    return sum(costs) / len(costs)


def test_ranknet_is_its_formula_and_leaves_out_what_the_teacher_does_not_know():
    nan = float("nan")
    scores = [[0.3, -1.0, 2.0, 0.5], [1.0, 0.0, -0.5, 4.0]]
    teacher = [[0.9, 0.1, 0.8, 0.3], [nan, 0.2, 0.7, nan]]
    found = weighted_ranknet(torch.tensor(scores), torch.tensor(teacher))
    assert found.item() == pytest.approx(by_formula(scores, teacher), rel=1e-5)


def test_mistakes_at_the_top_cost_more():
    teacher = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    top, bottom = torch.tensor([[3.0, 4.0, 2.0, 1.0]]), torch.tensor([[4.0, 3.0, 1.0, 2.0]])
    right = weighted_ranknet(teacher, teacher)
    assert weighted_ranknet(top, teacher) > weighted_ranknet(bottom, teacher) > right


def test_without_a_known_order_it_is_nothing_and_its_gradient_too():
    scores = torch.randn(2, 3, requires_grad=True)
    loss = weighted_ranknet(scores, torch.full((2, 3), float("nan")))
    loss.backward()
    assert loss.item() == 0 and scores.grad is not None and not scores.grad.any()
    equal = weighted_ranknet(scores, torch.ones(2, 3))
    assert equal.item() == 0
