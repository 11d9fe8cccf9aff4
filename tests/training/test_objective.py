"""The whole loss against one written out with loops, and what is learnt beside the model."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from colmrl.configure import load_config
from colmrl.errors import InputError
from colmrl.models.retriever import Embeddings
from colmrl.reduction import pool_tokens, pooled
from colmrl.scoring import MultiVectors
from colmrl.training.objective import Objective
from colmrl.training.pool import make_pool

COUNTS = ([3, 2, 4], [5, 7, 3, 6, 4])  # of the queries' and the candidates' vectors


def embedded(seed=0):
    generator = torch.Generator().manual_seed(seed)
    unit = lambda *shape: F.normalize(torch.randn(*shape, generator=generator), dim=-1)  # noqa: E731
    return Embeddings(unit(8, 16), MultiVectors.pack([unit(n, 8) for n in [*COUNTS[0], *COUNTS[1]]]))


def batch():
    """Three queries, five candidates; the third's positive answers the first too; one has two negatives, one none."""
    return {
        "order": torch.arange(8),
        "queries": torch.tensor(3),
        "candidates": torch.tensor([10, 11, 12, 13, 14]),
        "known": torch.tensor([[10, 12], [11, -1], [12, -1]]),
        "negatives": torch.tensor([[3, 4], [-1, -1], [4, -1]]),
        "teacher": torch.tensor([[3.0, 1.0, 2.0], [1.0, math.nan, math.nan], [2.0, 0.5, math.nan]]),
    }


def cross_entropy(row, label, dropped, temperature):
    kept = [j for j in range(len(row)) if j == label or j not in dropped]
    return -math.log(math.exp(row[label] / temperature) / sum(math.exp(row[j] / temperature) for j in kept))


def late(query, document, dim, budget):
    """MaxSim at a view, with numpy."""
    document = pool_tokens(document.numpy(), budget) if budget else document.numpy()
    cut = [v[:, :dim] / np.linalg.norm(v[:, :dim], axis=1, keepdims=True) for v in (query.numpy(), document)]
    return float((cut[0] @ cut[1].T).max(1).mean())


def early(query, document, dim):
    return float(F.normalize(query[:dim], dim=0) @ F.normalize(document[:dim], dim=0))


def tables(vectors, view):
    """Scores of queries × candidates, queries × queries and positives × positives at a view."""
    head, _, size = view.partition("@")
    dim, _, budget = size.partition("x")
    if head == "single":
        items, score = vectors.single, lambda q, d: early(q, d, int(dim))
    else:
        items, score = vectors.multi.unpack(), lambda q, d: late(q, d, int(dim), int(budget or 0))
    q, d = items[:3], items[3:]
    own = lambda a, b: late(a, b, int(dim), 0) if head == "multi" else score(a, b)  # noqa: E731
    return (
        [[score(x, y) for y in d] for x in q],
        [[own(x, y) for y in q] for x in q],  # queries are never pooled
        [[score(x, y) for y in d[:3]] for x in d[:3]],
    )


def reference(vectors, view, temperature, among_queries=False, among_documents=False):
    scores, queries, documents = tables(vectors, view)
    known = [{0, 2}, {1}, {2}]
    total = 0.0
    for i in range(3):
        row, dropped = list(scores[i]), set(known[i])
        if among_queries:  # another query whose positive answers this one is no negative, nor is the query itself
            row += queries[i]
            dropped |= {5 + j for j in range(3) if j == i or j in known[i]}
        column, back = [scores[j][i] for j in range(3)], {j for j in range(3) if i in known[j]}
        if among_documents:  # nor are two positives of one query
            column += documents[i]
            back |= {3 + j for j in range(3) if j == i or i in known[j] or j in known[i]}
        total += (cross_entropy(row, i, dropped, temperature) + cross_entropy(column, i, back, temperature)) / 2
    return total / 3


VIEWS = ["single@16", "single@4", "multi@8", "multi@2", "multi@8x3", "multi@2x3", "multi@8x1", "multi@2x1"]
BASE = ["single.dims=[16,4]", "multi.dims=[8,2]", "multi.budgets=[1,3]", "single.temperature=0.1"]


@pytest.mark.parametrize("queries", [False, True])
@pytest.mark.parametrize("documents", [False, True])
def test_every_dim_of_both_heads_at_every_budget_has_the_loss_of_its_formula(queries, documents):
    more = [f"loss.query_query={queries}".lower(), f"loss.document_document={documents}".lower()]
    config = load_config(None, [*BASE, *more])
    vectors = embedded()
    losses = Objective(config)(make_pool(vectors, batch(), config.multi.budgets))
    assert list(losses) == VIEWS
    for view, loss in losses.items():
        temperature = 0.1 if view.startswith("single") else 0.05
        expected = reference(vectors, view, temperature, queries, documents)
        assert loss.item() == pytest.approx(expected, rel=1e-4), view


def test_pooling_in_the_loss_is_pooling_in_the_store_and_carries_gradients():
    documents = embedded().multi.slice(3, 8)
    documents.vectors.requires_grad_()
    made = pooled(documents, (1, 3, 5, 100))
    for budget, some in made.items():
        for before, after in zip(documents.unpack(), some.unpack(), strict=True):
            expected = pool_tokens(before.detach().numpy(), budget)
            assert after.shape == expected.shape and np.allclose(after.detach().numpy(), expected, atol=1e-6)
    (made[3].vectors[:, 0].sum() + made[1].vectors[:, 1].sum()).backward()
    assert documents.vectors.grad is not None and documents.vectors.grad.abs().sum(1).gt(0).all()


def test_both_heads_weigh_the_same_unless_weights_say_otherwise():
    vectors = embedded()

    def total(*overrides):
        config = load_config(None, [*BASE, "multi.budgets=[]", *overrides])
        objective = Objective(config)
        losses = objective(make_pool(vectors, batch(), ()))
        return objective.total(losses, []).item(), {name: loss.item() for name, loss in losses.items()}

    value, losses = total()
    mean = {head: np.mean([v for name, v in losses.items() if name.startswith(head)]) for head in ("single", "multi")}
    assert value == pytest.approx(mean["single"] + mean["multi"])
    value, _ = total("loss.single_weight=2", "loss.multi_weight=0", "loss.view_weights={single@4: 3}")
    assert value == pytest.approx(2 * (losses["single@16"] + 3 * losses["single@4"]) / 4)


def test_every_term_counts_by_its_weight_at_its_view():
    vectors = embedded()
    terms = {"pairwise": 0.3, "self_distillation": 0.7, "teacher_kl": 0.2, "teacher_margin_mse": 0.01}
    config = load_config(None, [*BASE, *(f"loss.{name}={weight}" for name, weight in terms.items())])
    objective = Objective(config)
    losses = objective(make_pool(vectors, batch(), config.multi.budgets))
    assert {name for name in losses if "/" in name} == {
        f"{view}/{term}" for view in VIEWS for term in terms if term != "self_distillation" or view.startswith("single")
    }
    weights = {view: (1 / 2 if view.startswith("single") else 1 / 6) for view in VIEWS}
    expected = sum(
        weights[name.partition("/")[0]] * terms.get(name.partition("/")[2], 1.0) * loss.item()
        for name, loss in losses.items()
    )
    assert objective.total(losses, []).item() == pytest.approx(expected, rel=1e-5)
    scores, _, _ = tables(vectors, "single@16")
    gaps = [((scores[0][0] - scores[0][j]) / 0.1 - wanted) ** 2 for j, wanted in ((3, 2.0), (4, 1.0))]
    gaps = [sum(gaps) / 2, 0.0, ((scores[2][2] - scores[2][4]) / 0.1 - 1.5) ** 2]
    assert losses["single@16/teacher_margin_mse"].item() == pytest.approx(sum(gaps) / 3, rel=1e-4)


def test_a_temperature_is_learnt_only_where_asked_for_and_gets_its_gradient():
    vectors = embedded()
    for learn in ("true", "false"):
        config = load_config(None, [*BASE, f"loss.learn_temperature={learn}"])
        objective = Objective(config)
        loss = objective.total(objective(make_pool(vectors, batch(), config.multi.budgets)), [])
        assert loss.requires_grad == (learn == "true")
    config = load_config(None, [*BASE, "multi.dims=[]", "single.dims=[16]", "loss.learn_temperature=true"])
    objective = Objective(config)
    pool = make_pool(Embeddings(vectors.single, None), batch(), ())
    objective(pool)["single@16"].backward()
    step = 1e-3
    sides = [reference(vectors, "single@16", 0.1 * math.exp(sign * step)) for sign in (1, -1)]
    found = objective.log_temperatures["single"].grad
    assert found is not None and found.item() == pytest.approx((sides[0] - sides[1]) / (2 * step), rel=1e-3)


def test_gradnorm_compares_the_gradients_that_each_view_leaves_at_the_embeddings():
    vectors = embedded()
    config = load_config(None, [*BASE, "multi.budgets=[]", "loss.balance=gradnorm"])
    objective = Objective(config)
    single = vectors.single.clone().requires_grad_()
    multi = vectors.multi.vectors.clone().requires_grad_()
    leaves = Embeddings(single, MultiVectors(multi, vectors.multi.offsets))
    losses = objective(make_pool(leaves, batch(), ()))
    before = objective.balance.clone()
    total = objective.total(losses, [single, multi])
    assert not torch.equal(before, objective.balance) and objective.balance.sum().item() == pytest.approx(4)
    expected = sum(0.5 * w * loss for w, loss in zip(objective.balance.tolist(), losses.values(), strict=True))
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(objective.first, torch.stack(list(losses.values())).detach())
    norms = [
        torch.cat(
            [
                g.flatten()
                for g in torch.autograd.grad(0.5 * loss, [single, multi], allow_unused=True, retain_graph=True)
                if g is not None
            ]
        ).norm()
        for loss in losses.values()
    ]
    heaviest = int(torch.stack(norms).argmax())  # at the first step all have learnt the same: the largest comes down
    assert objective.balance[heaviest] < 1


@pytest.mark.parametrize(
    "wrong, said",
    [
        (["loss.view_weights={single@7: 1}"], r"loss\.view_weights: 'single@7' is not trained: choose from single@16"),
        (["loss.self_distillation=1", "multi.dims=[]"], r"loss\.self_distillation: one head only"),
        (["loss.single_weight=0", "multi.dims=[]"], r"loss\.single_weight, loss\.multi_weight: 0 for every head"),
    ],
)
def test_an_objective_that_cannot_be_is_said(wrong, said):
    with pytest.raises(InputError, match=said):
        Objective(load_config(None, [*BASE, *wrong]))


def test_records_count_as_what_they_are_whatever_their_order_in_the_chunks():
    config, vectors = load_config(None, BASE), embedded()
    order = torch.tensor([5, 2, 7, 0, 1, 6, 3, 4])
    objective = Objective(config)
    straight = objective(make_pool(vectors, batch(), config.multi.budgets))
    mixed = batch() | {"order": order.argsort()}
    turned = objective(make_pool(vectors.select(order), mixed, config.multi.budgets))
    for view, loss in straight.items():
        assert turned[view].item() == pytest.approx(loss.item(), rel=1e-5), view
