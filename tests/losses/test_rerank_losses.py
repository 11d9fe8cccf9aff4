"""Losses over a query's candidates, against formulas written out and sentence-transformers' own."""

import math

import pytest
import torch

from colmrl.losses.reranking import binary_cross_entropy, pairwise_logistic, softmax_over_list

SCORES = torch.tensor([[0.3, -1.2, 2.0, 0.1], [1.5, 0.2, -0.7, 9.0], [-0.4, 8.0, 8.0, 8.0]])
THERE = torch.tensor([[True, True, True, True], [True, True, True, False], [True, False, False, False]])


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_bce_is_the_mean_over_candidates_that_are_there():
    labels = torch.zeros(3, 4)
    labels[:, 0] = 1
    terms = [
        -math.log(sigmoid(SCORES[q, d])) if d == 0 else -math.log(1 - sigmoid(SCORES[q, d]))
        for q in range(3)
        for d in range(4)
        if THERE[q, d]
    ]
    assert binary_cross_entropy(SCORES, labels, THERE).item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_pairwise_is_the_mean_over_pairs_that_are_there():
    pairs = [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]
    terms = [-math.log(sigmoid(SCORES[q, 0] - SCORES[q, d])) for q, d in pairs]
    assert pairwise_logistic(SCORES, THERE).item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    assert pairwise_logistic(SCORES[1:2, :2], THERE[1:2, :2]).item() == pytest.approx(terms[3], rel=1e-5)
    assert pairwise_logistic(SCORES[2:], THERE[2:]).item() == 0  # a query with nothing to be above


def test_softmax_is_cross_entropy_of_the_first():
    terms = []
    for q in range(3):
        weights = [math.exp(SCORES[q, d]) for d in range(4) if THERE[q, d]]
        terms.append(-math.log(weights[0] / sum(weights)))
    assert softmax_over_list(SCORES, THERE).item() == pytest.approx(sum(terms) / 3, rel=1e-5)


@pytest.mark.parametrize("loss", [pairwise_logistic, softmax_over_list])
def test_padding_has_no_gradient(loss):
    scores = SCORES.clone().requires_grad_()
    loss(scores, THERE).backward()
    assert (scores.grad[~THERE] == 0).all() and (scores.grad[:2][THERE[:2]] != 0).all()
