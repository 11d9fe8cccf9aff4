"""The listwise reranker: all candidates in one prompt, the answer is the identifier of the best of them.

Nothing is generated. How likely each identifier is as the answer ranks the whole list (FIRST, arXiv:2406.15657), more
candidates than fit go through sliding windows (RankGPT, arXiv:2304.09542), and answers are averaged over orders of the
candidates, since a model prefers some places to others (permutation self-consistency, arXiv:2310.07712).

Letters: b prompts, c candidates, d documents.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from colmrl.config import Config
from colmrl.data.records import Document, Query
from colmrl.errors import InputError
from colmrl.models.attention import AttentionKernel
from colmrl.models.heads import pool
from colmrl.models.inputs import ModelInput
from colmrl.models.language import LanguageModel, Past
from colmrl.reranking.checkpoint import (
    RerankerDescription,
    create_language_model,
    describe,
    load_language_model,
    save_checkpoint,
)
from colmrl.reranking.identifiers import Trie
from colmrl.reranking.listwise_prompt import ListwisePrompts
from colmrl.reranking.windows import arrangements, slide


class Relevance(nn.Module):
    """A linear read-out of how well each candidate fits, from the mean of its own tokens' hidden states after two
    thirds of the layers: an answer can look for it in those that follow.
    """

    def __init__(self, language: LanguageModel):
        super().__init__()
        self.layer = max(1, round(language.layers * 2 / 3))
        self.read = nn.Linear(language.hidden_size, 1, bias=False)

    def forward(self, hidden: Float[Tensor, "b n h"], candidate: Int[Tensor, "b n"]) -> Float[Tensor, "b c"]:
        """`candidate`: which one each token is of, from 1; 0: of none. -inf where a list has no such candidate."""
        of = F.one_hot(candidate)[:, :, 1:].to(hidden)
        count = of.sum(1)
        scores = (of * self.read(hidden)).sum(1) / count.clamp(min=1)
        return scores.masked_fill(count == 0, -torch.inf)


class ListwiseReranker(nn.Module):
    def __init__(self, description: RerankerDescription, language: LanguageModel, processor: Any, name: str):
        super().__init__()
        self.description, self.name = description, name
        self.language, self.processor = language, processor
        self.prompts = ListwisePrompts(processor, description.model, description.rerank)
        reads = description.rerank.relevance > 0
        self.relevance = Relevance(language) if reads else None
        if description.rerank.answer == "relevance" and not reads:
            raise InputError("rerank.answer: relevance: is learnt by rerank.relevance alone, which is 0: give e.g. 1")

    @classmethod
    def create(cls, config: Config) -> "ListwiseReranker":
        """A new one, of `model.backbone`."""
        if config.model.attention == "bidirectional":
            raise InputError("model.attention: bidirectional: an answer is written from left to right: choose native")
        if config.attention_kernel != "sdpa" and config.rerank.identifiers == "numbers":
            raise InputError(
                f"attention_kernel: {config.attention_kernel}: cannot score numbers, whose digits branch: choose sdpa, "
                "or rerank.identifiers=letters"
            )
        description = describe(config)
        return cls(description, *create_language_model(config, description), config.model.backbone)

    @classmethod
    def load(
        cls, folder: str | Path, description: RerankerDescription, kernel: AttentionKernel = "sdpa"
    ) -> "ListwiseReranker":
        """A checkpoint."""
        folder = Path(folder)
        made = cls(description, *load_language_model(folder, description, kernel), folder.resolve().parent.name)
        if made.relevance is not None:
            made.relevance.read.load_state_dict(load_file(folder / "classifier.safetensors"))
        return made

    def save(self, folder: str | Path) -> None:
        read = None if self.relevance is None else self.relevance.read
        save_checkpoint(Path(folder), self.description, self.language, self.processor, read)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(
        self, inputs: ModelInput, labels: Int[Tensor, "b n"] | None = None, candidates: int = 0
    ) -> tuple[Float[Tensor, "b"] | Float[Tensor, "b c"], Float[Tensor, "b c"] | None]:
        """Log-likelihoods, for training: of the answers that `labels` show among the inputs (-100: no part of one), or
        of the answers that stand for the first so many candidates. And, with `rerank.relevance`, what is read off each
        candidate's own tokens (-inf: a list has no such candidate).
        """
        inputs, relevance = dict(inputs), None
        candidate = inputs.pop("candidate")
        if self.relevance is not None:
            hidden, within = self.language.hidden_within(inputs, self.relevance.layer)
            relevance = self.relevance(within, candidate)
        elif labels is None:
            return answer_log_likelihoods(self.language, inputs, self.prompts.identifiers.trie(candidates)), None
        else:
            hidden, _ = self.language.hidden(inputs)
        if labels is None:
            last = pool(hidden, inputs["attention_mask"].bool(), "last")
            trie = self.prompts.identifiers.trie(candidates)
            return trie.log_likelihoods(self.language.logits(last)[:, None]), relevance
        rows, places = (labels != -100).nonzero(as_tuple=True)
        log_probabilities = self.language.logits(hidden[rows, places - 1]).log_softmax(-1)
        each = log_probabilities.gather(1, labels[rows, places][:, None])[:, 0]
        return each.new_zeros(len(labels)).index_add(0, rows, each), relevance

    @torch.inference_mode()
    def score(self, query: Query, documents: Sequence[Document]) -> Float[np.ndarray, " d"]:
        """How likely each is the best of these (together 1); of more than fit into a prompt, 1 - rank / number.

        With `rerank.permutations` above 1 the order in which documents come changes nothing, where they fit into a
        prompt; with 1 they are shown as they come.
        """
        was_training, settings = self.training, self.description.rerank
        self.eval()
        try:
            past = self.language.read(self._here(self.prompts.opening(query)))

            def judge(places: Sequence[int]) -> Float[np.ndarray, " w"]:
                return self._among(query, [documents[place] for place in places], past)

            return slide(len(documents), settings.candidates, settings.stride, judge)
        finally:
            self.train(was_training)

    def _among(self, query: Query, documents: Sequence[Document], past: Past) -> Float[np.ndarray, " w"]:
        """Probabilities of documents that fit into one prompt, averaged over orders of them."""
        settings = self.description.rerank
        orders = [list(range(len(documents)))]
        if settings.permutations > 1 and len(documents) > 1:
            orders = arrangements([document.id for document in documents], settings.permutations, query.id)
        total = np.zeros(len(documents), np.float32)
        trie = self.prompts.identifiers.trie(len(documents))
        for start in range(0, len(orders), settings.batch_size):
            some = orders[start : start + settings.batch_size]
            prompts = [self.prompts.marked([documents[place] for place in order]) for order in some]
            inputs = self._here(self.prompts.join(prompts))
            candidate = inputs.pop("candidate")
            if settings.answer == "relevance":
                assert self.relevance is not None
                _, within = self.language.hidden_within(inputs, self.relevance.layer, past)
                likely = self.relevance(within, candidate)
            else:
                likely = answer_log_likelihoods(self.language, inputs, trie, past)
            for order, probabilities in zip(some, likely.softmax(1).cpu().numpy(), strict=True):
                total[order] += probabilities
        return total / len(orders)

    def _here(self, inputs: ModelInput) -> ModelInput:
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}


def answer_log_likelihoods(
    language: LanguageModel, inputs: Mapping[str, Tensor], trie: Trie, past: Past | None = None
) -> Float[Tensor, "b c"]:
    """Of each answer in full, as the text that follows the prompts; `past`: what stands before them, read already."""
    if not trie.tokens:
        hidden, mask = language.hidden(inputs, past)
        return trie.log_likelihoods(language.logits(pool(hidden, mask, "last"))[:, None])
    read = language.read(inputs, past)
    branches = language.branches(torch.tensor(trie.tokens), trie.depths, trie.sees, read)
    return trie.log_likelihoods(language.logits(torch.cat([read.hidden[:, None], branches], 1)))
