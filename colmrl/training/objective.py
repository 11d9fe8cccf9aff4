"""The loss of a batch: at every trained view of both heads, all terms that `config.loss` asks for.

Losses are pure functions (`losses/`); what may be learnt beside the model, temperatures and balance, lives here.
Letters: q queries of this process, Q queries and d candidates of all processes, n negatives, c = 1 + n, v views.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from colmrl.config import Config
from colmrl.errors import InputError
from colmrl.losses.balance import by_uncertainty, gradnorm_step, shares
from colmrl.losses.contrastive import false_negatives, info_nce, pairwise
from colmrl.losses.distillation import self_distillation, teacher_kl, teacher_margin_mse
from colmrl.scoring import dot, maxsim, truncate
from colmrl.training.gather import sum_over_processes
from colmrl.training.pool import Pool, Side
from colmrl.view import View

_COLDEST = 0.01  # a learnt temperature stays above it, as CLIP's does


class Objective(nn.Module):
    """Pool → losses of this process's queries by name; `total` weighs them."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config.loss
        self.views = trained_views(config)
        names = [str(view) for view in self.views]
        _check(config, names)
        heads = {"single": config.loss.single_weight, "multi": config.loss.multi_weight}
        self.share: Tensor
        self.register_buffer("share", shares(names, config.loss.view_weights, heads), persistent=False)
        start = {"single": config.single.temperature, "multi": config.multi.temperature}
        self.log_temperatures = nn.ParameterDict(
            {
                head: nn.Parameter(torch.tensor(start[head]).log(), requires_grad=config.loss.learn_temperature)
                for head in dict.fromkeys(view.head for view in self.views)
            }
        )
        self.balance: Tensor  # log variances (uncertainty), or weights (gradnorm), one a view
        self.first: Tensor  # gradnorm: the losses at the first step
        if config.loss.balance == "uncertainty":
            self.balance = nn.Parameter(torch.zeros(len(names)))
        elif config.loss.balance == "gradnorm":
            self.register_buffer("balance", torch.ones(len(names)))
            self.register_buffer("first", torch.zeros(len(names)))

    def temperature(self, head: str) -> Float[Tensor, ""]:
        """A learnt one is no colder than `_COLDEST` wherever its parameter is, which keeps its gradient there."""
        value = self.log_temperatures[head].exp()
        return value + (value.clamp_min(_COLDEST) - value).detach() if value.requires_grad else value

    def forward(self, pool: Pool) -> dict[str, Float[Tensor, ""]]:
        """`head@dim…` → InfoNCE in both directions; `head@dim…/term` → another term of that view, unweighted."""
        losses: dict[str, Tensor] = {}
        logits: dict[View, Tensor] = {}
        masks: dict[View, Tensor] = {}
        for view in self.views:
            scores = _scores(view, pool.queries, pool.candidates)
            own = pool.answers[pool.own]
            masks[view] = false_negatives(scores, own, pool.known, self.config.false_negative_margin)
            logits[view] = scores / self.temperature(view.head)
            there, back = self._to_candidates(view, pool, scores, masks[view]), self._to_queries(view, pool, scores)
            losses[str(view)] = (there + back).mean() / 2 * pool.share
            for name, values in self._terms(view, pool, logits[view], masks[view]).items():
                losses[f"{view}/{name}"] = values.mean() * pool.share
        if self.config.self_distillation:
            teacher = next(view for view in self.views if view.head == "multi")  # the largest, with all its vectors
            for view in (view for view in self.views if view.head == "single"):
                values = self_distillation(logits[view], logits[teacher], masks[view] | masks[teacher])
                losses[f"{view}/self_distillation"] = values.mean() * pool.share
        return losses

    def total(self, losses: Mapping[str, Tensor], embeddings: Sequence[Tensor]) -> Float[Tensor, ""]:
        """One number to minimise. `embeddings`: this process's, whose gradients gradnorm compares; none: it waits."""
        weights = {name: getattr(self.config, name) for name in _TERMS}
        each = torch.stack(
            [
                sum((weights[term] * losses[f"{view}/{term}"] for term in _TERMS if f"{view}/{term}" in losses), loss)
                for view, loss in ((view, losses[str(view)]) for view in self.views)
            ]
        )
        match self.config.balance:
            case "uncertainty":
                return by_uncertainty(each, self.share, self.balance)
            case "gradnorm":
                if each.requires_grad and embeddings:
                    self._move_weights(each, embeddings)
                return (self.share * self.balance * each).sum()
        return (self.share * each).sum()

    def _to_candidates(self, view: View, pool: Pool, scores: Tensor, masked: Tensor) -> Float[Tensor, " q"]:
        own = pool.answers[pool.own]
        if self.config.query_query:  # a query whose answer answers this one too is none of its negatives
            scores = torch.cat([scores, _scores(view, pool.queries, pool.all_queries)], 1)
            known = torch.cat([pool.known, _marked(pool.known[:, pool.answers], pool.own)], 1)
            masked = false_negatives(scores, own, known, self.config.false_negative_margin)
        return info_nce(scores, own, masked, self.temperature(view.head))

    def _to_queries(self, view: View, pool: Pool, scores: Tensor) -> Float[Tensor, " q"]:
        known = pool.known_queries
        if pool.queries is pool.all_queries:
            back = scores[:, pool.answers].T
        else:
            back = _scores(view, pool.all_queries, pool.positives).T
        if self.config.document_document:  # positives that answer one query are no negatives of each other
            back = torch.cat([back, _scores(view, pool.positives, pool.candidates.select(pool.answers))], 1)
            known = torch.cat([known, _marked(known | pool.known[:, pool.answers], pool.own)], 1)
        masked = false_negatives(back, pool.own, known, self.config.false_negative_margin)
        return info_nce(back, pool.own, masked, self.temperature(view.head))

    def _terms(self, view: View, pool: Pool, logits: Tensor, masked: Tensor) -> dict[str, Float[Tensor, " q"]]:
        own = pool.answers[pool.own]
        terms: dict[str, Tensor] = {}
        if self.config.pairwise:
            terms["pairwise"] = pairwise(logits, own, masked, pool.negatives)
        if self.config.teacher_kl or self.config.teacher_margin_mse:
            student = logits.gather(1, torch.cat([own[:, None], pool.negatives], 1).clamp_min(0))
            if self.config.teacher_kl:
                terms["teacher_kl"] = teacher_kl(student, pool.teacher, self.config.teacher_temperature)
            if self.config.teacher_margin_mse:
                terms["teacher_margin_mse"] = teacher_margin_mse(student, pool.teacher)
        return terms

    def _move_weights(self, each: Float[Tensor, " v"], embeddings: Sequence[Tensor]) -> None:
        norms = []
        for share, loss in zip(self.share, each, strict=True):
            grads = torch.autograd.grad(share * loss, embeddings, retain_graph=True, allow_unused=True)
            norms.append(torch.stack([grad.square().sum() for grad in grads if grad is not None]).sum())
        together = sum_over_processes(torch.stack([torch.stack(norms), each.detach()]))
        if not together.isfinite().all():
            return  # a step that the scaler of fp16 leaves out
        if not self.first.any():
            self.first.copy_(together[1])
        self.balance.copy_(gradnorm_step(self.balance, together[0].sqrt(), together[1], self.first))


_TERMS = ("pairwise", "teacher_kl", "teacher_margin_mse", "self_distillation")


def trained_views(config: Config) -> list[View]:
    """Every view that has a loss, each head's largest first."""
    views = [View("single", dim) for dim in sorted(config.single.dims, reverse=True)]
    for budget in (None, *sorted(config.multi.budgets, reverse=True)):
        views += [View("multi", dim, budget) for dim in sorted(config.multi.dims, reverse=True)]
    return views


def _scores(view: View, queries: Side, documents: Side) -> Float[Tensor, "q d"]:
    if view.head == "single":
        query, document = queries.full.single, documents.full.single
        assert query is not None and document is not None
        return dot(truncate(query, view.dim), truncate(document, view.dim))
    found = documents.budgets.get(view.vectors or 0, documents.full.multi)
    assert queries.full.multi is not None and found is not None
    return maxsim(queries.full.multi.truncate(view.dim), found.truncate(view.dim))


def _marked(mask: Bool[Tensor, "q Q"], own: Int[Tensor, " q"]) -> Bool[Tensor, "q Q"]:
    return mask.scatter(1, own[:, None], True)


def _check(config: Config, names: Sequence[str]) -> None:
    wrong = sorted(config.loss.view_weights.keys() - set(names))
    if wrong:
        raise InputError(f"loss.view_weights: {wrong[0]!r} is not trained: choose from {', '.join(names)}")
    if config.loss.self_distillation and not (config.single.dims and config.multi.dims):
        raise InputError("loss.self_distillation: one head only: give single.dims and multi.dims, or leave it 0")
    heads = dict.fromkeys(name.partition("@")[0] for name in names)
    if not any(getattr(config.loss, f"{head}_weight") for head in heads):
        raise InputError("loss.single_weight, loss.multi_weight: 0 for every head that there is: nothing is trained")
    if not any(config.loss.view_weights.get(name, 1) for name in names):
        raise InputError("loss.view_weights: 0 for every view: nothing is trained")
