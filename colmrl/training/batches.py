"""Examples → batches: which negatives an epoch shows, and which candidates must not count as negatives."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from colmrl.data.records import Example, Examples
from colmrl.models.inputs import InputBuilder


class ExampleDataset(Dataset[Example]):
    """Examples with at most `negatives` of their hard negatives, drawn anew each epoch, the same for the same seed."""

    def __init__(self, examples: Examples, negatives: int, seed: int):
        self.examples, self.negatives, self.seed, self.epoch = examples, negatives, seed, 0

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
    """A list of examples → {"queries", "documents", "known_positive"}.

    Candidates are the positives in the queries' order, then all explicit negatives; every query sees all of
    them. `positives`: query id → ids of all documents known to answer it.
    """

    inputs: InputBuilder
    positives: Mapping[str, set[str]]

    def __call__(self, examples: Sequence[Example]) -> dict[str, dict[str, Tensor] | Tensor]:
        candidates = [example.positive for example in examples]
        candidates += [negative for example in examples for negative in example.negatives]
        known = [[c.id in self.positives.get(example.query.id, ()) for c in candidates] for example in examples]
        return {
            "queries": self.inputs.queries([example.query for example in examples]),
            "documents": self.inputs.documents(candidates),
            "known_positive": torch.tensor(known),
        }
