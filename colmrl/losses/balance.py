"""How much each view's loss counts: fixed weights, learnt uncertainty, or GradNorm. Letters: v views."""

import torch
from jaxtyping import Float
from torch import Tensor

_LEARNING_RATE, _ASYMMETRY = 0.025, 1.5  # of GradNorm, as its authors used them


def shares(views: list[str], weights: dict[str, float], head_weights: dict[str, float]) -> Float[Tensor, " v"]:
    """What each view (`head@dim…`) counts for: heads by their weights, the views of a head share it by theirs (1 where
    none is named).
    """
    raw = {view: weights.get(view, 1.0) for view in views}
    heads = {view: view.partition("@")[0] for view in views}
    sums = {head: sum(raw[view] for view in views if heads[view] == head) for head in heads.values()}
    return torch.tensor([head_weights[heads[view]] * raw[view] / (sums[heads[view]] or 1) for view in views])


def by_uncertainty(
    losses: Float[Tensor, " v"], share: Float[Tensor, " v"], log_variances: Float[Tensor, " v"]
) -> Float[Tensor, ""]:
    """Σ share·(e^-s·loss + s/2), s the learnt log variance of a view (arXiv:1705.07115)."""
    return (share * (torch.exp(-log_variances) * losses + log_variances / 2)).sum()


def gradnorm_step(
    weights: Float[Tensor, " v"], norms: Float[Tensor, " v"], losses: Float[Tensor, " v"], first: Float[Tensor, " v"]
) -> Float[Tensor, " v"]:
    """GradNorm's next weights (arXiv:1711.02257): views that have learnt less than the others get more gradient.

    `norms`: of each view's own gradient at the embeddings, the last tensors that all views of a head share and that a
    cached step has; `losses`, `first`: now and at the first step. The gradient of Σ|w·norm − target| by w is known in
    closed form, so there is no second backward pass. The sum of the weights stays.
    """
    scaled = weights * norms
    progress = losses / first.clamp_min(1e-12)
    target = scaled.mean() * (progress / progress.mean().clamp_min(1e-12)) ** _ASYMMETRY
    moved = (weights - _LEARNING_RATE * torch.sign(scaled - target) * norms / norms.mean().clamp_min(1e-12)).clamp_min(
        0.01
    )
    return moved * (weights.sum() / moved.sum())
