"""What other processes hold, with gradients: every query meets the candidates of all (as SimCLR, arXiv:2002.05709).

Each process computes the losses of its own queries; the library averages parameter gradients over processes. For that
the gradient of a gathered tensor is the sum over all processes' losses, not this process's alone
(docs/training.md). With one process all functions give back what they got. Letters: n rows here, N rows of all.
"""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from colmrl.models.retriever import Embeddings
from colmrl.processes import device, processes
from colmrl.scoring import MultiVectors


def gather_rows(rows: Shaped[Tensor, "n *shape"]) -> Shaped[Tensor, "N *shape"]:
    """The rows of all processes in rank order; they may have different numbers of them. Keeps gradients."""
    if processes() == 1:
        return rows
    counts = gather_counts(len(rows))
    return _Gather.apply(rows, counts) if rows.requires_grad else _gathered(rows, counts)


def gather_counts(count: int) -> list[int]:
    """A number of each process."""
    if processes() == 1:
        return [count]
    counts = [torch.empty(1, dtype=torch.long, device=device()) for _ in range(processes())]
    dist.all_gather(counts, torch.tensor([count], device=device()))
    return [int(each) for each in counts]


def gather_embeddings(embeddings: Embeddings) -> Embeddings:
    return Embeddings(
        gather_rows(embeddings.single) if embeddings.single is not None else None,
        gather_multi(embeddings.multi) if embeddings.multi is not None else None,
    )


def gather_multi(items: MultiVectors) -> MultiVectors:
    """Packed, so that only the longest process's vectors are padded on the wire."""
    if processes() == 1:
        return items
    counts = gather_rows(items.counts)
    return MultiVectors(gather_rows(items.vectors), torch.nn.functional.pad(counts.cumsum(0), (1, 0)))


def gather_padded(rows: Int[Tensor, "n k"], fill: int) -> Int[Tensor, "N K"]:
    """Rows of different widths, filled up to the widest of all processes."""
    widest = max(gather_counts(rows.shape[1]))
    return gather_rows(torch.nn.functional.pad(rows, (0, widest - rows.shape[1]), value=fill))


def sum_over_processes(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Without a gradient."""
    return _reduced(values, dist.ReduceOp.SUM)


def largest_of_processes(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Without a gradient."""
    return _reduced(values, dist.ReduceOp.MAX)


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """Name → trained weight, put together from its shards, on the CPU; empty where nothing is sharded."""
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    if not any(isinstance(p, DTensor) for p in trained.values()):
        return {}
    return {name: (p.full_tensor() if isinstance(p, DTensor) else p).cpu() for name, p in trained.items()}


def _reduced(values: Tensor, operation: Any) -> Tensor:
    if processes() == 1:
        return values.detach().clone()
    reduced = values.detach().to(device(), copy=True)
    dist.all_reduce(reduced, operation)
    return reduced.to(values.device)


def _gathered(rows: Tensor, counts: list[int]) -> Tensor:
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


class _Gather(torch.autograd.Function):
    """Backward: all processes' gradients summed, then one's own rows (torch's own all_gather is wrong on gloo where the
    gradient is not contiguous).
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        ctx.start, ctx.count = sum(counts[: dist.get_rank()]), len(rows)
        return _gathered(rows, counts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        summed = grads[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed[ctx.start : ctx.start + ctx.count], None
