"""Which examples make a batch: every batch is of one source, the same in every process for the same seed and epoch.

Documents of one data set tell each other apart by more than the data set that they are of (GTE, arXiv:2308.03281;
nomic-embed, arXiv:2402.01613).
"""

import itertools
import random
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class RetrievalBatches(Sampler[list[int]]):
    """This process's part of each batch, as indices of the sources' examples laid one after another.

    A batch is `batch_size` × `world` examples of one source, divided evenly. Without `weights` an epoch shows every
    example once. With them it has as many batches, each source's share of them in proportion to its weight, and a
    source that is through begins again in another order. The last batch of a source is smaller; where it would leave
    a process without an example it is filled up from the source's beginning.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        weights: Sequence[float] | None,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ):
        assert all(sizes) and (weights is None or len(weights) == len(sizes)) and 0 <= rank < world
        self.sizes, self.weights, self.batch_size = tuple(sizes), weights, batch_size
        self.seed, self.rank, self.world, self.epoch = seed, rank, world, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(-(-size // (self.batch_size * self.world)) for size in self.sizes)

    def __iter__(self) -> Iterator[list[int]]:
        starts = [0, *itertools.accumulate(self.sizes)]
        batches = [self._batches(source) for source in range(len(self.sizes))]
        for source in self._sources():
            whole = next(batches[source])
            mine = whole[self.rank * len(whole) // self.world : (self.rank + 1) * len(whole) // self.world]
            yield [starts[source] + place for place in mine]

    def _sources(self) -> list[int]:
        """Of each batch of the epoch. A source has its share rounded up or down, by chance, so that over epochs it has
        its share (systematic sampling)."""
        draw = random.Random(f"{self.seed}-{self.epoch}")
        weights = self.weights or [-(-size // (self.batch_size * self.world)) for size in self.sizes]
        start, per_weight = draw.random() if self.weights else 0.5, len(self) / sum(weights)
        bounds = [0, *(int(share * per_weight + start) for share in itertools.accumulate(weights))]
        bounds[-1] = len(self)
        sources = [source for source, (low, high) in enumerate(itertools.pairwise(bounds)) for _ in range(low, high)]
        draw.shuffle(sources)
        return sources

    def _batches(self, source: int) -> Iterator[list[int]]:
        """Of one source without end, each pass in an order of its own."""
        size = self.batch_size * self.world
        for turn in itertools.count():
            draw = random.Random(f"{self.seed}-{self.epoch}-{source}-{turn}")
            generator = torch.Generator().manual_seed(draw.getrandbits(63))
            order = torch.randperm(self.sizes[source], generator=generator)
            for start in range(0, len(order), size):
                batch = order[start : start + size].tolist()
                if len(batch) < self.world:
                    missing = self.world - len(batch)
                    batch += itertools.islice(itertools.cycle(order[:missing].tolist()), missing)
                yield batch
