"""GradCache (arXiv:2101.06983): the exact gradient of a large batch, in the memory of a small one.

All chunks are embedded without a graph; the loss of the whole batch gives the gradient of the embeddings, of both heads
at once; then each chunk is embedded again, with the same random state, and gets its part of that gradient.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from colmrl.models.retriever import Embeddings

Chunk = Mapping[str, Tensor]
Backward = Callable[[Tensor], Any]


def cached_step(
    model: Callable[..., Embeddings],
    chunks: Sequence[Chunk],
    loss_of: Callable[[Embeddings], Tensor],
    loss_backward: Backward,
    chunk_backward: Backward,
    no_sync: Callable[[], contextlib.AbstractContextManager[Any]],
    passes: int | None = None,
) -> Tensor:
    """Add the gradient of `loss_of(embeddings of all chunks' records)` to the parameters; returns the loss, detached.

    Gradients are synchronised across processes once, with the last chunk (`no_sync`: as DistributedDataParallel's).
    `passes`: how often the model must run, where its weights are sharded and another process has more chunks (None:
    once a chunk); the last chunk then runs again and counts for nothing.
    """
    states, parts = [], []
    passes = passes or len(chunks)
    padded = [*chunks, *[chunks[-1]] * (passes - len(chunks))]
    with torch.no_grad():
        for chunk in padded:
            states.append(_random_state())
            parts.append(_leaf(model(chunk)))
    loss = loss_of(Embeddings.cat(parts[: len(chunks)]))
    loss_backward(loss)
    for i, (chunk, state, part) in enumerate(zip(padded, states, parts, strict=True)):
        last = i == passes - 1
        with _replaying(state), contextlib.nullcontext() if last else no_sync():
            again = model(chunk)
            chunk_backward(
                torch.stack([_dot(now, then) for now, then in zip(tensors(again), tensors(part), strict=True)]).sum()
            )
    return loss.detach()


def tensors(embeddings: Embeddings) -> list[Tensor]:
    """The vectors of the heads that there are."""
    multi = embeddings.multi.vectors if embeddings.multi is not None else None
    return [vectors for vectors in (embeddings.single, multi) if vectors is not None]


def _leaf(embeddings: Embeddings) -> Embeddings:
    single, multi = embeddings.single, embeddings.multi
    return Embeddings(
        single.detach().requires_grad_() if single is not None else None,
        replace(multi, vectors=multi.vectors.detach().requires_grad_()) if multi is not None else None,
    )


def _dot(now: Tensor, then: Tensor) -> Tensor:
    """Its gradient by `now` is the cached one; 0 for a head that the loss does not look at."""
    return (now * (then.grad if then.grad is not None else torch.zeros_like(then))).sum()


def _random_state() -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None


@contextlib.contextmanager
def _replaying(state: tuple[Tensor, Tensor | None]) -> Iterator[None]:
    """Dropout draws again what it drew then; afterwards the random state is what it was before."""
    devices = [torch.cuda.current_device()] if state[1] is not None else []
    with torch.random.fork_rng(devices):
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.cuda.set_rng_state(state[1])
        yield
