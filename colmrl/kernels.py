"""MaxSim's inner loop on a CPU: each query vector's best match in each document, without gradients, on plain tensors.

Vectors stay packed. A product with one document (with a few short ones, or a part of a long one) stays in a core's
cache while its maxima are taken, and is reduced to one score a query and document at once; so beside the scores a
thread holds megabytes, whatever the number of documents. Documents are split over threads of one torch thread each.
In bf16 the product takes a sixth of the time (AMX), and its maxima a fifth by comparing the bits as integers.
Letters: q queries, d documents, t query vectors, n document vectors, h dim, c documents at a time.
"""

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

_PRODUCT_BYTES = 9 << 17  # of similarities at a time: with the vectors well within L2
_ROWS = 1024  # most document vectors multiplied at a time
_FEW_ROWS = 128  # fewest, of a long document with many query vectors
_TASK_ROWS = 1 << 14  # document vectors that a thread takes at a time
_TASK_BYTES = 1 << 22  # of best matches, likewise
_QUERY_VECTORS = 1024  # multiplied at a time
_COLUMNS = 32  # query vectors are padded to a multiple of it: torch's maximum is slow at other widths
_BF16_PAYS = 128  # query vectors from which rounding the documents costs less than it saves
_BF16_WORK = 1 << 24  # multiplications a document, likewise: of a few vectors, scoring some pairs again costs more
_BF16_ROUNDOFF = 2.0**-8  # relative

Work = TypeVar("Work")


@dataclass(frozen=True)
class Queries:
    """Query i's vectors are `vectors[offsets[i]:offsets[i + 1]]`."""

    vectors: Float[Tensor, "t h"]
    offsets: Sequence[int]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def groups(self) -> "Iterator[Queries]":
        """Whole queries of up to `_QUERY_VECTORS` vectors together; at least one query."""
        start = 0
        while start < len(self):
            stop = max(start + 1, bisect_right(self.offsets, self.offsets[start] + _QUERY_VECTORS) - 1)
            low, high = self.offsets[start], self.offsets[stop]
            yield Queries(self.vectors[low:high], [offset - low for offset in self.offsets[start : stop + 1]])
            start = stop

    def columns(self) -> Float[Tensor, "h padded"]:
        return F.pad(self.vectors, (0, 0, 0, -len(self.vectors) % _COLUMNS)).T.contiguous()

    def means(self, values: Float[Tensor, "c padded"]) -> Float[Tensor, "q c"]:
        """Over each query's vectors, in an order that does not depend on what else is scored."""
        sums = np.add.reduceat(values[:, : self.offsets[-1]].numpy(), self.offsets[:-1], axis=1)
        return torch.from_numpy((sums / np.diff(self.offsets).astype(sums.dtype)).T)


@dataclass(frozen=True)
class Documents:
    """Document i's vectors are `rows(offsets[i], offsets[i + 1])`, which reads (and decodes) a stretch of all."""

    rows: Callable[[int, int], Float[Tensor, "n h"]]
    offsets: Sequence[int]

    def __len__(self) -> int:
        return len(self.offsets) - 1


def mean_best(queries: Queries, documents: Documents) -> Float[Tensor, "q d"]:
    """MaxSim, averaged over a query's vectors, in the queries' precision."""

    def of_group(some: Queries) -> Tensor:
        scores, columns, room = some.vectors.new_empty(len(some), len(documents)), some.columns(), _Room()

        def run(task: _Task) -> None:
            best = _best(task, lambda low, high: documents.rows(low, high).to(columns.dtype), columns, room)
            scores[:, task.start : task.stop] = some.means(best)

        spread(run, _tasks(documents.offsets, columns))
        return scores

    return torch.cat([of_group(some) for some in queries.groups()])


def bounded_mean_best(queries: Queries, documents: Documents) -> tuple[Float[Tensor, "q d"], Float[Tensor, "q d"]]:
    """MaxSim of queries and documents rounded to bf16, and how far from it the exact one can be, pair by pair.

    With ~ for rounded: |q·d - q~·d~| ≤ |q - q~| |d~| + |q| |d - d~| (Cauchy-Schwarz). Adding up h products in fp32,
    here and for the exact score, errs by less than h 2^-23 |q| |d| each, writing in bf16 by 2^-8 of the result. A
    maximum over a document's vectors errs by no more than the largest of these, a mean by no more than their mean.
    The norms of the rounding errors are measured: they are about half of what 2^-8 allows.
    """
    scores, slack = zip(*(_bounded_of_group(some, documents) for some in queries.groups()), strict=True)
    return torch.cat(scores), torch.cat(slack)


def _bounded_of_group(queries: Queries, documents: Documents) -> tuple[Tensor, Tensor]:
    scores, slack = queries.vectors.new_empty(2, len(queries), len(documents)).unbind()
    columns, room = queries.columns().bfloat16(), _Room()
    rounded = columns.T[: len(queries.vectors)].float()
    lost = (queries.vectors - rounded).norm(dim=1) + columns.shape[0] * 2.0**-22 * rounded.norm(dim=1)
    by_norm, by_error = queries.means(lost[None]), queries.means(queries.vectors.norm(dim=1)[None])

    def run(task: _Task) -> None:
        first = task.cuts[0]
        norms, errors = torch.empty(2, task.cuts[-1] - first).unbind()

        def read(low: int, high: int) -> Tensor:
            vectors = documents.rows(low, high)
            halves = vectors.bfloat16()
            torch.linalg.vector_norm(vectors, dim=1, out=norms[low - first : high - first])
            torch.linalg.vector_norm(vectors - halves, dim=1, out=errors[low - first : high - first])
            return halves

        best = _best(task, read, columns, room)
        starts = np.asarray(documents.offsets[task.start : task.stop]) - first
        norm, error = (torch.from_numpy(np.maximum.reduceat(a.numpy(), starts)) for a in (norms, errors))
        of_output = queries.means(best.abs()) * (_BF16_ROUNDOFF / (1 - _BF16_ROUNDOFF))
        bound = by_norm * (norm + error) + by_error * error + of_output
        scores[:, task.start : task.stop] = queries.means(best)
        slack[:, task.start : task.stop] = bound * 1.001  # for what fp32 rounds in these lines

    spread(run, _tasks(documents.offsets, columns))
    return scores, slack


def bf16_pays(queries: Queries, documents: Documents) -> bool:
    vectors, dim = queries.vectors.shape
    work = vectors * dim * (documents.offsets[-1] - documents.offsets[0]) / max(1, len(documents))
    return vectors >= _BF16_PAYS and work >= _BF16_WORK and queries.vectors.dtype == torch.float32


def mean_best_of_pairs(queries: Queries, documents: Documents, wanted: Bool[Tensor, "q d"]) -> Float[Tensor, "q d"]:
    """MaxSim of the pairs that are `wanted`; -inf elsewhere."""
    groups = list(queries.groups())
    parts = zip(groups, wanted.split([len(some) for some in groups]), strict=True)
    return torch.cat([_of_pairs(some, documents, part) for some, part in parts])


def _of_pairs(queries: Queries, documents: Documents, wanted: Tensor) -> Tensor:
    scores = torch.full(wanted.shape, float("-inf"), dtype=queries.vectors.dtype)
    each = queries.vectors.split(np.diff(queries.offsets).tolist())

    def run(some: Tensor) -> None:
        for j in some.tolist():
            which = wanted[:, j].nonzero()[:, 0]
            parts = [each[i] for i in which.tolist()]
            asked = Queries(torch.cat(parts), np.cumsum([0, *[len(part) for part in parts]]).tolist())
            document = documents.rows(documents.offsets[j], documents.offsets[j + 1]).to(asked.vectors.dtype)
            scores[which, j] = asked.means((asked.vectors @ document.T).amax(1)[None])[:, 0]

    spread(run, wanted.any(0).nonzero()[:, 0].split(64))
    return scores


@dataclass(frozen=True)
class _Task:
    """Documents start..stop; their vectors are cut at `cuts` into pieces, long documents into several.

    `firsts`: each document's first piece; `blocks`: the pieces multiplied at a time, first..last.
    """

    start: int
    stop: int
    cuts: list[int]
    firsts: list[int]
    blocks: list[tuple[int, int]]


def _tasks(offsets: Sequence[int], columns: Tensor) -> Iterator[_Task]:
    width = columns.shape[1] * columns.element_size()
    rows, documents = max(_FEW_ROWS, min(_ROWS, _PRODUCT_BYTES // width)), max(1, _TASK_BYTES // width)
    start, count = 0, len(offsets) - 1
    while start < count:
        whole = bisect_right(offsets, offsets[start] + _TASK_ROWS) - 1
        stop = min(max(start + 1, whole), start + documents)
        cuts, firsts = _cuts(offsets[start : stop + 1], rows)
        blocks = []
        piece = 0
        while piece < len(cuts) - 1:
            last = max(piece + 1, bisect_right(cuts, cuts[piece] + rows) - 1)
            blocks.append((piece, last))
            piece = last
        yield _Task(start, stop, cuts, firsts, blocks)
        start = stop


def _cuts(offsets: Sequence[int], rows: int) -> tuple[list[int], list[int]]:
    """Where vectors are cut so that no piece has more than `rows`, and each document's first piece."""
    if np.diff(offsets).max() <= rows:
        return list(offsets), list(range(len(offsets) - 1))
    cuts, firsts = [offsets[0]], []
    for end in offsets[1:]:
        firsts.append(len(cuts) - 1)
        pieces = -(-(end - cuts[-1]) // rows)
        size = -(-(end - cuts[-1]) // pieces)
        cuts += [*range(cuts[-1] + size, end, size), end]
    return cuts, firsts


class _Room(threading.local):
    """Each thread's memory for products, kept from one task to the next: what is allocated anew is slow to touch."""

    kept: Tensor | None = None

    def of(self, count: int, like: Tensor) -> Tensor:
        if self.kept is None or len(self.kept) < count:
            self.kept = like.new_empty(count)
        return self.kept


def _best(task: _Task, read: Callable[[int, int], Tensor], columns: Tensor, room: _Room) -> Float[Tensor, "c padded"]:
    """Each column's best match in each of the task's documents."""
    halves = columns.dtype == torch.bfloat16
    bits = torch.int16 if halves else columns.dtype
    width, cuts = columns.shape[1], task.cuts
    buffer = room.of(max(cuts[last] - cuts[first] for first, last in task.blocks) * width, columns)
    extremes = torch.empty(1 + halves, len(cuts) - 1, width, dtype=bits)
    for first, last in task.blocks:
        vectors = read(cuts[first], cuts[last])
        product = torch.mm(vectors, columns, out=buffer[: len(vectors) * width].view(-1, width)).view(bits)
        lengths = [cuts[i + 1] - cuts[i] for i in range(first, last)]
        for reduce, found in zip((torch.amax, torch.amin), extremes, strict=False):
            if len(set(lengths)) == 1:
                reduce(product.view(len(lengths), -1, width), 1, out=found[first:last])
                continue
            for one, out in zip(product.split(lengths), found[first:last], strict=True):
                reduce(one, 0, out=out)
    best = extremes[0]
    if halves:  # as integers, the bits of numbers from 0 up are in the numbers' order, of those below in reverse
        best = torch.where(best >= 0, best, extremes[1]).view(torch.bfloat16).float()
    if len(cuts) - 1 > len(task.firsts):
        best = torch.from_numpy(np.maximum.reduceat(best.numpy(), task.firsts, axis=0))
    return best


def spread(run: Callable[[Work], None], work: Iterator[Work] | Sequence[Work]) -> None:
    """Run all work, on as many threads as torch has, each with one torch thread.

    torch's number of threads is kept a thread, but a new thread starts with what was last set anywhere; hence it is
    set again when done.
    """
    threads, inference, todo = torch.get_num_threads(), torch.is_inference_mode_enabled(), list(work)
    if threads == 1 or len(todo) < 2:
        with torch.no_grad():
            for one in todo:
                run(one)
        return

    def in_thread(one: Work) -> None:
        with torch.inference_mode(inference), torch.no_grad():
            run(one)

    try:
        with ThreadPoolExecutor(min(threads, len(todo)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(in_thread, todo):
                pass
    finally:
        torch.set_num_threads(threads)
