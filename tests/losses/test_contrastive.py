import math

import pytest
import torch

from colmrl.losses.contrastive import false_negatives, info_nce, pairwise


def formula(row, label, known, temperature, margin):
    """InfoNCE of one row, written out with Python floats."""
    kept = [
        j
        for j, score in enumerate(row)
        if j == label or not (known[j] or (margin is not None and score > row[label] + margin))
    ]
    return -math.log(math.exp(row[label] / temperature) / sum(math.exp(row[j] / temperature) for j in kept))


def table(rows, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(rows, columns, generator=generator, dtype=torch.float64) * 2 - 1
    return scores, torch.rand(rows, columns, generator=generator) < 0.3, torch.randperm(columns)[:rows]


@pytest.mark.parametrize("margin", [None, 0.0, 0.1])
@pytest.mark.parametrize("columns", [4, 7])
def test_info_nce_equals_its_formula_wherever_the_answers_stand(margin, columns):
    scores, known, labels = table(4, columns)
    losses = info_nce(scores, labels, false_negatives(scores, labels, known, margin), 0.1)
    expected = [
        formula(row, label, marked, 0.1, margin)
        for row, label, marked in zip(scores.tolist(), labels.tolist(), known.tolist(), strict=True)
    ]
    assert losses.tolist() == pytest.approx(expected)


def test_the_own_positive_is_never_masked():
    labels = torch.tensor([2, 0, 4])
    mask = false_negatives(torch.zeros(3, 5), labels, torch.ones(3, 5, dtype=torch.bool), 0.0)
    assert not mask.gather(1, labels[:, None]).any() and mask.sum() == 12


def test_the_margin_mask_lets_no_gradient_through():
    scores = torch.tensor([[0.5, 0.2, 0.9], [0.1, 0.5, 0.4]], requires_grad=True)
    labels = torch.arange(2)
    masked = false_negatives(scores, labels, torch.zeros(2, 3, dtype=torch.bool), 0.1)
    info_nce(scores, labels, masked, 0.1).sum().backward()
    assert scores.grad is not None and scores.grad[0, 2] == 0 and scores.grad[1, 2] != 0


def test_pairwise_is_the_mean_softplus_of_the_explicit_negatives_margins():
    logits = torch.tensor([[2.0, 1.0, 3.0, 0.5], [0.0, 1.0, 5.0, -1.0]])
    labels, nothing = torch.tensor([0, 1]), torch.zeros(2, 4, dtype=torch.bool)
    losses = pairwise(logits, labels, nothing, torch.tensor([[2, 3], [3, -1]]))
    softplus = [math.log1p(math.exp(margin)) for margin in (1.0, -1.5, -2.0)]
    assert losses.tolist() == pytest.approx([(softplus[0] + softplus[1]) / 2, softplus[2]])


def test_pairwise_without_explicit_negatives_takes_the_hardest_that_is_not_masked():
    logits = torch.tensor([[2.0, 1.0, 3.0], [0.0, 1.0, 5.0]])
    masked = torch.tensor([[False, False, False], [False, False, True]])
    losses = pairwise(logits, torch.tensor([0, 1]), masked, torch.full((2, 1), -1))
    assert losses.tolist() == pytest.approx([math.log1p(math.exp(1.0)), math.log1p(math.exp(-1.0))])
    alone = pairwise(logits[:, :1].clone(), torch.tensor([0, 0]), masked[:, :1], torch.full((2, 0), -1))
    assert alone.tolist() == [0, 0]
