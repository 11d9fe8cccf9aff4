"""Learning from a better judge: KL divergence and margin-MSE, one number a query.

The multi head teaches the single one (jina-embeddings-v4, arXiv:2506.18902), or scores in the triples teach both
(KL: arXiv:1503.02531; margin-MSE: arXiv:2010.02666). Letters: q queries, d candidates, c a positive and its negatives.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def self_distillation(
    single: Float[Tensor, "q d"], multi: Float[Tensor, "q d"], masked: Bool[Tensor, "q d"]
) -> Float[Tensor, " q"]:
    """KL(single‖multi) of the two heads' distributions over the candidates that are not masked; logits, i.e. scores
    over their temperatures. The multi head is the teacher: it gets no gradient.
    """
    student = single.masked_fill(masked, float("-inf")).log_softmax(1).masked_fill(masked, 0)
    teacher = multi.detach().masked_fill(masked, float("-inf")).log_softmax(1).masked_fill(masked, 0)
    return (student.exp().masked_fill(masked, 0) * (student - teacher)).sum(1)


def teacher_kl(student: Float[Tensor, "q c"], teacher: Float[Tensor, "q c"], temperature: float) -> Float[Tensor, " q"]:
    """KL(teacher‖student) over a query's positive (first) and explicit negatives. `student`: logits; `teacher`: scores,
    NaN where there is none; a query without two of them has nothing to learn and gives 0.
    """
    absent = teacher.isnan()
    absent |= absent[:, :1] | (absent.sum(1, keepdim=True) == teacher.shape[1] - 1)
    some = ~absent.all(1)
    student, teacher, absent = student[some], teacher[some], absent[some]
    target = (teacher.nan_to_num() / temperature).masked_fill(absent, float("-inf")).softmax(1)
    learnt = student.masked_fill(absent, float("-inf")).log_softmax(1).masked_fill(absent, 0)
    divergence = F.kl_div(learnt, target, reduction="none").masked_fill(absent, 0).sum(1)
    return divergence.new_zeros(len(some)).masked_scatter(some, divergence)


def teacher_margin_mse(student: Float[Tensor, "q c"], teacher: Float[Tensor, "q c"]) -> Float[Tensor, " q"]:
    """Squared difference of the student's (logits) and the teacher's margins of the positive (first) to each explicit
    negative, the mean over those that have scores (none: 0).
    """
    wanted = teacher[:, :1] - teacher[:, 1:]
    there = ~wanted.isnan()
    error = torch.where(there, student[:, :1] - student[:, 1:] - wanted.nan_to_num(), 0.0)
    return error.square().sum(1) / there.sum(1).clamp_min(1)
