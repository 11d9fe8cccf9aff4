"""What a listwise reranker is trained on: lists of candidates with the right one among them, drawn anew each epoch.

Of sequences, each user's is split at a random place: the items before it are the history, the one there is the target,
the other candidates are random items. Of other data each example is a list: its positive, its own hard negatives, and
random documents for what is left. Letters: b lists, c candidates, n tokens.
"""

import random
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from colmrl.config import Config
from colmrl.data.mixture import Mixture
from colmrl.data.reading import format_of, read_training
from colmrl.data.records import Document, Examples, Query
from colmrl.errors import InputError
from colmrl.losses.ranknet import weighted_ranknet
from colmrl.models.inputs import tokens
from colmrl.reranking.listwise import ListwiseReranker, Taught
from colmrl.reranking.listwise_prompt import ListwisePrompts
from colmrl.reranking.reranker import Reranker
from colmrl.training.guards import identity

_UNKNOWN = float("nan")
_SHORT = (2, 3, 5, 10)


@dataclass(frozen=True)
class Choice:
    """One of `documents`, the one at `label`, is the right one. `scores`: a teacher's, NaN where there is none. Those
    at `spare` may be exchanged for any that is not `known` to answer the query.
    """

    query: Query
    documents: tuple[Document, ...]
    label: int
    scores: tuple[float, ...]
    spare: tuple[int, ...] = ()
    known: frozenset[str] = frozenset()


class Choices(Dataset[Choice]):
    """Lists of `candidates` documents, shuffled. What is drawn depends on seed, epoch and index alone.

    `by_user`: examples of the same user, as their queries' ids say, are one list an epoch. `hard`: of an example's own
    negatives at most so many are taken.
    """

    def __init__(
        self,
        examples: Mixture,
        positives: dict[str, set[str]],
        candidates: int,
        seed: int,
        by_user: Sequence[bool],
        hard: int | None = None,
    ):
        self.examples, self.positives, self.candidates, self.seed, self.epoch = examples, positives, candidates, seed, 0
        self._hard = candidates - 1 if hard is None else min(hard, candidates - 1)
        self.weights = examples.weights
        self.sizes: list[int] = []
        self._starts = array("q", [0])  # where each list's examples begin
        for part, together in zip(examples.parts, by_user, strict=True):
            ends = _ends(part) if together else range(1, len(part) + 1)
            self.sizes.append(len(ends))
            first = self._starts[-1]
            self._starts.extend(first + end for end in ends)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def identity(self) -> dict[str, object]:
        return identity(self.examples)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> Choice:
        rng = random.Random(f"{self.seed}-{self.epoch}-{index}")
        chosen = rng.randrange(self._starts[index], self._starts[index + 1])
        there = range(self.examples.negatives_of(chosen))
        hard = rng.sample(there, self._hard) if len(there) > self._hard else there
        example = self.examples.with_negatives(chosen, hard)
        known = self.positives.get(example.query.id, set()) | {example.positive.id}
        had = {self.examples.own_id(chosen, name) for name in example.query.meta.get("history", ())}
        own = [negative for negative in example.negatives if negative.id not in known]
        scores = dict(
            zip((example.positive.id, *(negative.id for negative in example.negatives)), example.scores, strict=True)
            if example.scores is not None
            else ()
        )
        never = known | had | {negative.id for negative in own}
        others = self.examples.random_documents(chosen, never, self.candidates - 1 - len(own), rng)
        shown = [example.positive, *own, *others]
        rng.shuffle(shown)
        label = next(i for i, document in enumerate(shown) if document is example.positive)
        random_ids = () if had else {document.id for document in others}
        return Choice(
            example.query,
            tuple(shown),
            label,
            tuple(scores.get(document.id, _UNKNOWN) for document in shown),
            tuple(i for i, document in enumerate(shown) if document.id in random_ids),
            frozenset(known),
        )


@dataclass(frozen=True)
class Collator:
    """Lists → one batch. Plain cross-entropy: `inputs` are prompts with their answers, `labels` [b n] the answers'
    tokens and -100 elsewhere. With `ranked`, every answer is scored: `inputs` are prompts alone, `candidates` how many
    the longest list has, `target` [b] the right one, `teacher` [b c] its scores, NaN where there is none.
    """

    prompts: ListwisePrompts
    ranked: bool
    short: bool = False  # all lists of a batch may be cut to a length drawn for it

    def __call__(self, choices: Sequence[Choice]) -> dict[str, Any]:
        right = [choice.documents[choice.label] for choice in choices]
        choices = [beside(choice, right[i + 1 :] + right[:i]) for i, choice in enumerate(choices)]
        if self.short:
            most = max(len(choice.documents) for choice in choices)
            rng = random.Random(" ".join(choice.query.id for choice in choices))
            size = rng.choice([size for size in _SHORT if size < most] + [most])
            choices = [shortened(choice, size, rng) for choice in choices]
        prompts = [self.prompts.marked(choice.documents, self.prompts.opening(choice.query)) for choice in choices]
        target = torch.tensor([choice.label for choice in choices])
        if not self.ranked:
            answered = [self.prompts.answered(one, choice.label) for one, choice in zip(prompts, choices, strict=True)]
            lengths = [tokens(one) - tokens(prompt) for one, prompt in zip(answered, prompts, strict=True)]
            inputs = self.prompts.join(answered)
            return {"inputs": inputs, "labels": labels_of(inputs, lengths), "target": target}
        most = max(len(choice.documents) for choice in choices)
        teacher = torch.full((len(choices), most), _UNKNOWN)
        for row, choice in zip(teacher, choices, strict=True):
            row[: len(choice.scores)] = torch.tensor(choice.scores)
        return {"inputs": self.prompts.join(prompts), "candidates": most, "target": target, "teacher": teacher}


def beside(choice: Choice, others: Sequence[Document]) -> Choice:
    """Other lists' right documents in place of its spare ones."""
    never = choice.known | {document.id for document in choice.documents}
    found = {document.id: document for document in others if document.id not in never}
    documents = list(choice.documents)
    for place, document in zip(choice.spare, found.values(), strict=False):
        documents[place] = document
    return replace(choice, documents=tuple(documents))


def shortened(choice: Choice, size: int, rng: random.Random) -> Choice:
    """The right document and others drawn, in their order."""
    others = [i for i in range(len(choice.documents)) if i != choice.label]
    kept = sorted([choice.label, *rng.sample(others, min(size - 1, len(others)))])
    documents, scores = (tuple(of[i] for i in kept) for of in (choice.documents, choice.scores))
    return replace(choice, documents=documents, scores=scores, label=kept.index(choice.label), spare=())


def labels_of(inputs: dict[str, Tensor], lengths: Sequence[int]) -> Tensor:
    """The last tokens of each prompt, as many as its answer has, wherever the padding is; -100 elsewhere."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    left = mask.flip(1).long().cumsum(1).flip(1)  # tokens from here to the end, this one counted
    return ids.masked_fill(~mask | (left > torch.tensor(lengths)[:, None]), -100)


def examples(config: Config) -> Choices:
    mixture, positives = read_training(config.data, config.show)
    if config.rerank.ranknet and not mixture.scored:
        raise InputError(
            "rerank.ranknet: no example has a score of its positive and of a negative: mine with a teacher, give "
            "triples with pos_score and neg_scores, or leave it 0"
        )
    if config.rerank.ranknet and config.rerank.identifiers == "numbers" and config.train.gradient_checkpointing:
        raise InputError(
            "train.gradient_checkpointing: keeps no keys and values, which rerank.ranknet on numbers goes on from: "
            "leave it out, or choose rerank.identifiers=letters"
        )
    if config.rerank.ranknet and config.rerank.answer == "relevance":
        raise InputError("rerank.ranknet: orders answers by identifier: leave it 0, or choose rerank.answer=identifier")
    beside = [name for name in ("relevance", "naming", "attention") if getattr(config.rerank, name)]
    if config.rerank.ranknet and beside and config.rerank.identifiers == "numbers":
        raise InputError(
            f"rerank.{beside[0]}, rerank.ranknet: not together on numbers, whose answers branch: leave one of them 0, "
            "or choose rerank.identifiers=letters"
        )
    if config.rerank.attention and config.rerank.answer == "relevance":
        raise InputError(
            "rerank.attention: leads answers by identifier: leave it 0, or choose rerank.answer=identifier"
        )
    sources = config.data.sources or (config.data,)
    by_user = [(source.format or format_of(Path(source.path))) == "sequences" for source in sources]
    return Choices(mixture, positives, config.rerank.candidates, config.seed, by_user, config.train.negatives)


def create(config: Config) -> nn.Module:
    return ListwiseReranker.create(config)


def collator(config: Config, model: ListwiseReranker) -> Callable[[Sequence[Choice]], dict[str, Any]]:
    return Collator(model.prompts, config.rerank.ranknet > 0, config.rerank.short_lists)


def compute_loss(config: Config, model: nn.Module, batch: dict[str, Any]) -> Tensor:
    """Negative log-likelihood of the right answers, a mean over lists; with what is asked for: weighted RankNet, the
    cross-entropies of what is read off the candidates themselves, and where the answer looks."""
    rerank, target = config.rerank, batch["target"]
    if "labels" in batch:
        taught: Taught = model(batch["inputs"], labels=batch["labels"], target=target)
        loss = -taught.likely.mean()
    else:
        taught = model(batch["inputs"], candidates=batch["candidates"], target=target)
        right = taught.likely.gather(1, target[:, None])
        loss = -right.mean() + rerank.ranknet * weighted_ranknet(taught.likely, batch["teacher"])
    loss = loss.new_zeros(()) if rerank.answer == "relevance" else loss
    if taught.relevance is not None:
        loss = loss + rerank.relevance * F.cross_entropy(taught.relevance, target)
    if taught.naming is not None:
        loss = loss + rerank.naming * taught.naming
    if taught.attention is not None:
        loss = loss + rerank.attention * taught.attention
    return loss


def reranker(model: ListwiseReranker) -> Reranker:
    return model


def _ends(part: Examples) -> list[int]:
    """Where each user's examples end: queries are called `<user>/<position>`, a user's in a row."""
    users = [triple.query_id.rpartition("/")[0] for triple in part.triples()]
    last = len(users) - 1
    return [i + 1 for i, user in enumerate(users) if i == last or users[i + 1] != user or not user]
