import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from colmrl.configure import load_config
from colmrl.losses.contrastive import false_negatives, info_nce
from colmrl.losses.matryoshka import total
from colmrl.models.retriever import Embeddings
from colmrl.scoring import MultiVectors
from colmrl.training.trainer import batch_losses


def formula(scores, known, temperature, margin):
    """InfoNCE written out with Python floats."""
    count = len(scores)

    def direction(table, known):
        losses = []
        for i, row in enumerate(table):
            kept = [
                j
                for j, score in enumerate(row)
                if j == i or not (known[i][j] or (margin is not None and score > row[i] + margin))
            ]
            losses.append(-math.log(math.exp(row[i] / temperature) / sum(math.exp(row[j] / temperature) for j in kept)))
        return sum(losses) / len(losses)

    loss = direction(scores, known)
    turned = [[scores[i][j] for i in range(count)] for j in range(count)]
    turned_known = [[known[i][j] for i in range(count)] for j in range(count)]
    return (loss + direction(turned, turned_known)) / 2


@pytest.mark.parametrize("margin", [None, 0.0, 0.1])
@pytest.mark.parametrize("negatives", [0, 3])
def test_info_nce_equals_its_formula(margin, negatives):
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(4, 4 + negatives, generator=generator, dtype=torch.float64) * 2 - 1
    known = torch.rand(4, 4 + negatives, generator=generator) < 0.3
    expected = formula(scores.tolist(), known.tolist(), 0.1, margin)
    assert info_nce(scores, known, 0.1, margin).item() == pytest.approx(expected)


def test_the_own_positive_is_never_masked():
    known = torch.ones(3, 5, dtype=torch.bool)
    mask = false_negatives(torch.zeros(3, 5), known, 0.0)
    assert not mask.diagonal().any() and mask.sum() == 12


def test_the_margin_mask_lets_no_gradient_through():
    scores = torch.tensor([[0.5, 0.2, 0.9], [0.1, 0.5, 0.4]], requires_grad=True)
    info_nce(scores, torch.zeros(2, 3, dtype=torch.bool), 0.1, margin=0.1).backward()
    assert scores.grad is not None and scores.grad[0, 2] == 0 and scores.grad[1, 2] != 0


def test_every_dim_of_both_heads_has_its_loss_and_both_heads_weigh_the_same():
    torch.manual_seed(0)
    queries, documents = (Embeddings(torch.randn(n, 16), None) for n in (3, 5))
    known = torch.zeros(3, 5, dtype=torch.bool)
    multi = [MultiVectors.pack([torch.randn(n, 8) for n in counts]) for counts in ((2, 3, 1), (4, 1, 2, 3, 5))]
    config = load_config(None, ["single.dims=[16,8,4]", "multi.dims=[8,2]", "single.temperature=0.1"])
    both = [replace(part, multi=vectors) for part, vectors in zip((queries, documents), multi, strict=True)]
    losses = batch_losses(config, *both, known)
    assert list(losses) == ["single@16", "single@8", "single@4", "multi@8", "multi@2"]
    values = [loss.item() for loss in losses.values()]
    assert total(losses).item() == pytest.approx(sum(values[:3]) / 3 + sum(values[3:]) / 2)
    cut = [F.normalize(part.single[:, :4], dim=1) for part in both]
    assert losses["single@4"].item() == pytest.approx(info_nce(cut[0] @ cut[1].T, known, 0.1).item())
    pairs = [[(q[:, :2], d[:, :2]) for d in multi[1].unpack()] for q in multi[0].unpack()]
    scores = [[(F.normalize(q, dim=1) @ F.normalize(d, dim=1).T).amax(1).mean() for q, d in row] for row in pairs]
    by_hand = info_nce(torch.tensor(scores), known, config.multi.temperature)
    assert losses["multi@2"].item() == pytest.approx(by_hand.item(), rel=1e-5)
