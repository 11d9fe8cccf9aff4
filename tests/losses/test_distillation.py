import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from colmrl.losses.distillation import self_distillation, teacher_kl, teacher_margin_mse

NAN = float("nan")


def test_self_distillation_is_the_divergence_of_the_heads_over_what_is_not_masked():
    torch.manual_seed(0)
    single, multi = torch.randn(3, 5, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    masked = torch.zeros(3, 5, dtype=torch.bool)
    masked[1, [0, 3]] = True
    losses = self_distillation(single, multi, masked)
    for i in range(3):
        kept = ~masked[i]
        expected = kl_divergence(Categorical(logits=single[i, kept]), Categorical(logits=multi[i, kept]))
        assert losses[i].item() == pytest.approx(expected.item(), rel=1e-5)
    losses.sum().backward()
    assert multi.grad is None and single.grad is not None
    assert single.grad.isfinite().all() and single.grad[masked].eq(0).all() and single.grad[~masked].ne(0).all()


def test_teacher_kl_is_the_divergence_from_the_teacher_over_what_it_scored():
    torch.manual_seed(0)
    student = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[2.0, 1.0, 0.0], [3.0, NAN, 1.0], [NAN, 1.0, 2.0], [1.0, NAN, NAN]]).double()
    losses = teacher_kl(student, teacher, 0.5)
    for i, kept in ((0, [0, 1, 2]), (1, [0, 2])):
        expected = kl_divergence(Categorical(logits=teacher[i, kept] / 0.5), Categorical(logits=student[i, kept]))
        assert losses[i].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses[2:].tolist() == [0, 0]  # no score of the positive, or nothing to compare it with
    losses.sum().backward()
    assert student.grad is not None and student.grad.isfinite().all() and student.grad[2:].eq(0).all()
    assert teacher_kl(student[2:], teacher[2:], 1.0).tolist() == [0, 0]


def test_margin_mse_compares_margins_and_skips_what_has_no_score():
    student = torch.tensor([[5.0, 3.0, 1.0], [5.0, 3.0, 1.0], [5.0, 3.0, 1.0]], requires_grad=True)
    teacher = torch.tensor([[9.0, 8.0, 4.0], [9.0, NAN, 4.0], [NAN, 1.0, 1.0]])
    losses = teacher_margin_mse(student, teacher)
    assert losses.tolist() == [((2 - 1) ** 2 + (4 - 5) ** 2) / 2, 1.0, 0.0]
    losses.sum().backward()
    assert student.grad is not None and student.grad.isfinite().all() and student.grad[1, 1] == 0
