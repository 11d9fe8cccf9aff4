"""Examples → batches: which negatives an epoch shows, and which candidates must not count as negatives."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from colmrl.config import Config
from colmrl.data.mixture import Mixture
from colmrl.data.records import Example
from colmrl.errors import InputError
from colmrl.models.inputs import InputBuilder, tokens
from colmrl.training.chunks import by_length, chunks_of


class ExampleDataset(Dataset[Example]):
    """Examples with at most `negatives` of their hard negatives, drawn anew each epoch, the same for the same seed."""

    def __init__(self, examples: Mixture, negatives: int, seed: int):
        self.examples, self.negatives, self.seed, self.epoch = examples, negatives, seed, 0

    @property
    def sizes(self) -> list[int]:
        return self.examples.sizes

    @property
    def weights(self) -> list[float] | None:
        return self.examples.weights

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        there = range(self.examples.negatives_of(index))
        if len(there) > self.negatives:
            there = random.Random(f"{self.seed}-{self.epoch}-{index}").sample(there, self.negatives)
        return self.examples.with_negatives(index, there)


@dataclass(frozen=True)
class Collator:
    """A list of examples → one process's batch, every part a tensor (docs/training.md):

    chunks         model inputs, each of some records, ready for one forward pass
    order     [r]  where each record stands among the chunks' rows: first the queries, then the candidates
    queries   []   how many of the records are queries, q; the other d are candidates: the positives in the queries'
                   order, then all explicit negatives
    candidates[d]  a key of each candidate's id
    known     [q k] keys of all candidates known to answer each query, padded with -1
    negatives [q n] which candidates are a query's own explicit negatives, padded with -1
    teacher   [q 1+n] the triples' scores of its positive and of those, NaN where there is none

    `positives`: query id → ids of all documents known to answer it. `mini_batch_size`, `mini_batch_tokens`: what a
    chunk holds, at most, records of like length together (`chunks.chunks_of`). With neither, the chunks are those that
    cost least (`chunks.by_length`), `pass_tokens` a chunk, or, without it, one of queries and one of documents.
    """

    inputs: InputBuilder
    positives: Mapping[str, set[str]]
    mini_batch_size: int | None = None
    mini_batch_tokens: int | None = None
    pass_tokens: int | None = None

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        candidates = [example.positive for example in examples]
        candidates += [negative for example in examples for negative in example.negatives]
        queries = [example.query for example in examples]
        records = [*self.inputs.each_query(queries), *self.inputs.each_document(candidates)]
        chunks = self._chunks([tokens(record) for record in records], len(queries))
        rows = [place for chunk in chunks for place in chunk]
        known = [sorted(map(key, self.positives.get(query.id, ()))) for query in queries]
        most = max((len(example.negatives) for example in examples), default=0)
        negatives, place = torch.full((len(queries), most), -1), len(queries)
        teacher = torch.full((len(queries), 1 + most), float("nan"))
        for i, example in enumerate(examples):
            negatives[i, : len(example.negatives)] = torch.arange(place, place + len(example.negatives))
            place += len(example.negatives)
            if example.scores is not None:
                teacher[i, : len(example.scores)] = torch.tensor(example.scores)
        return {
            "chunks": [self.inputs.join([records[place] for place in chunk]) for chunk in chunks],
            "order": torch.argsort(torch.tensor(rows)),
            "queries": torch.tensor(len(queries)),
            "candidates": torch.tensor([key(c.id) for c in candidates]),
            "known": _padded(known),
            "negatives": negatives,
            "teacher": teacher,
        }

    def _chunks(self, lengths: Sequence[int], queries: int) -> list[list[int]]:
        """Places of the records of each chunk; where tokens are counted, queries and documents may share one."""
        if self.mini_batch_tokens:
            return chunks_of(lengths, self.mini_batch_size, self.mini_batch_tokens)
        if self.pass_tokens and not self.mini_batch_size:
            return by_length(lengths, self.pass_tokens)
        first, then = (chunks_of(some, self.mini_batch_size) for some in (lengths[:queries], lengths[queries:]))
        return first + [[queries + place for place in chunk] for chunk in then]


def check_teacher(config: Config, examples: Mixture, negatives: int) -> None:
    """An InputError where the triples' scores are to teach and there are none, or no negatives to tell them of."""
    asked = [f"loss.{name}" for name in ("teacher_kl", "teacher_margin_mse") if getattr(config.loss, name)]
    if asked and not examples.scored:
        raise InputError(
            f"{', '.join(asked)}: no example has a score of its positive and of a negative: mine with a teacher, give "
            "triples with pos_score and neg_scores, or leave it 0"
        )
    if asked and not negatives:
        raise InputError(f"train.negatives: 0: {', '.join(asked)} compares a positive with its negatives: raise it")


def key(name: str) -> int:
    """63 bits of an id's hash, the same in every process: what ranks compare instead of texts."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 1


def _padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    padded = torch.full((len(rows), max(map(len, rows), default=0)), -1)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = torch.tensor(row, dtype=torch.long)
    return padded
