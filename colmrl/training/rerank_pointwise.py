"""What a pointwise reranker is trained on: a query's positive and its negatives, each in a prompt of its own.

Negatives are the example's own (mined, or shown and not clicked), drawn anew each epoch; where it has fewer than
`train.negatives`, the positives of the batch's other queries, and then random documents of its data set, none of which
is a known answer. A document that is right for one query and wrong for another in the same step tells nothing without
the query: a tiny model that did not learn from random documents did from these (docs/pointwise.md).
"""

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from colmrl.config import Config
from colmrl.data.mixture import Mixture
from colmrl.data.reading import read_training
from colmrl.data.records import Document, Query
from colmrl.losses.reranking import binary_cross_entropy, pairwise_logistic, softmax_over_list
from colmrl.reranking.pointwise import PointwiseModel, PointwisePrompt, PointwiseReranker
from colmrl.training.guards import identity

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """A query with its positive and its own negatives; `spare` are random documents, as many as are missing; `known`:
    ids of documents that answer it."""

    query: Query
    positive: Document
    negatives: tuple[Document, ...]
    spare: tuple[Document, ...]
    known: frozenset[str]


class PointwiseData(Dataset[Question]):
    """Examples with at most `negatives` documents that are not their answers; the same for the same seed, epoch and
    index."""

    def __init__(self, examples: Mixture, answers: Mapping[str, set[str]], negatives: int, seed: int):
        self.examples, self.answers, self.negatives, self.seed, self.epoch = examples, answers, negatives, seed, 0
        self.sizes, self.weights = examples.sizes, examples.weights

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def identity(self) -> dict[str, object]:
        return identity(self.examples)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Question:
        draw = random.Random(f"{self.seed}-{self.epoch}-{index}")
        own = range(self.examples.negatives_of(index))
        example = self.examples.with_negatives(index, draw.sample(own, min(self.negatives, len(own))))
        known = frozenset(self.answers.get(example.query.id, ())) | {example.positive.id}
        never = known | {document.id for document in example.negatives}
        spare = self.examples.random_documents(index, never, self.negatives - len(example.negatives), draw)
        return Question(example.query, example.positive, example.negatives, tuple(spare), known)


@dataclass(frozen=True)
class PointwiseCollator:
    """Questions → one batch of prompts, every question's positive and then its negatives; and of the scores of each:

    places [q d]  which prompt each score is of; -1: this query has no such candidate
    """

    prompt: PointwisePrompt

    def __call__(self, questions: Sequence[Question]) -> dict[str, Any]:
        prompts, places = [], []
        for question in questions:
            documents = candidates(question, [other.positive for other in questions])
            places.append(torch.arange(len(prompts), len(prompts) + len(documents)))
            prompts += self.prompt.whole(question.query, documents)
        padded = torch.nn.utils.rnn.pad_sequence(places, batch_first=True, padding_value=-1)
        return {"inputs": self.prompt.inputs.join(prompts), "places": padded}


def candidates(question: Question, others: Sequence[Document]) -> list[Document]:
    """The positive, and the negatives: its own, then of `others` and of the spare ones as many as are missing."""
    found = {document.id: document for document in (question.positive, *question.negatives)}
    wanted = len(found) + len(question.spare)
    for document in (*others, *question.spare):
        if len(found) < wanted and document.id not in question.known:
            found.setdefault(document.id, document)
    return list(found.values())


def examples(config: Config) -> PointwiseData:
    found, answers = read_training(config.data, config.show)
    negatives = 1 if config.train.negatives is None else config.train.negatives
    most = found.most_negatives
    log.info(
        "%d examples with %d negatives each: up to %d of their own, then the batch's and random ones",
        len(found),
        negatives,
        most,
    )
    return PointwiseData(found, answers, negatives, config.seed)


def create(config: Config) -> PointwiseModel:
    return PointwiseModel.create(config)


def collator(config: Config, model: PointwiseModel) -> Callable[[Sequence[Question]], dict[str, Any]]:
    return PointwiseCollator(model.prompt)


def reranker(model: PointwiseModel) -> PointwiseReranker:
    return PointwiseReranker(model, "pointwise")


def compute_loss(config: Config, model: Any, batch: dict[str, Any]) -> Tensor:
    places = batch["places"]
    scores, there = model(batch["inputs"])[places], places >= 0
    match config.rerank.loss:
        case "bce":
            labels = torch.zeros_like(scores)
            labels[:, 0] = 1
            return binary_cross_entropy(scores, labels, there)
        case "pairwise":
            return pairwise_logistic(scores, there)
        case "softmax":
            return softmax_over_list(scores, there)
