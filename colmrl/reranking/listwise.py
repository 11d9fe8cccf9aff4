"""The listwise reranker: all candidates in one prompt, the answer is the identifier of the best of them.

Nothing is generated. How likely each identifier is as the answer ranks the whole list (FIRST, arXiv:2406.15657), more
candidates than fit go through sliding windows (RankGPT, arXiv:2304.09542), and answers are averaged over orders of the
candidates, since a model prefers some places to others (permutation self-consistency, arXiv:2310.07712).

Letters: b prompts, c candidates, d documents.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from colmrl.config import Config
from colmrl.data.records import Document, Query
from colmrl.errors import InputError
from colmrl.models.attention import AttentionKernel
from colmrl.models.heads import pool
from colmrl.models.inputs import ModelInput
from colmrl.models.language import LanguageModel, Past
from colmrl.models.weights import read_tensors
from colmrl.reranking.checkpoint import (
    RerankerDescription,
    create_language_model,
    describe,
    load_language_model,
    save_checkpoint,
)
from colmrl.reranking.description import is_checkpoint, read_description
from colmrl.reranking.identifiers import Trie
from colmrl.reranking.listwise_prompt import ListwisePrompts
from colmrl.reranking.readings import Naming, Relevance, looks_elsewhere, reading_layer
from colmrl.reranking.windows import arrangements, slide


class Taught(NamedTuple):
    """What a forward pass gives for training. `likely`: log-likelihoods of answers; `relevance`: what is read off each
    candidate's own tokens (-inf: a list has no such candidate); `naming` and `attention`: losses. None: not asked for.
    """

    likely: Float[Tensor, "b"] | Float[Tensor, "b c"]
    relevance: Float[Tensor, "b c"] | None = None
    naming: Float[Tensor, ""] | None = None
    attention: Float[Tensor, ""] | None = None


class ListwiseReranker(nn.Module):
    def __init__(self, description: RerankerDescription, language: LanguageModel, processor: Any, name: str):
        super().__init__()
        self.description, self.name = description, name
        self.language, self.processor = language, processor
        self.prompts = ListwisePrompts(processor, description.model, description.rerank)
        rerank = description.rerank
        self.relevance = Relevance(language) if rerank.relevance else None
        self.naming = Naming(language, rerank.candidates) if rerank.naming else None
        if rerank.answer == "relevance" and self.relevance is None:
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
        if config.attention_kernel != "sdpa" and config.rerank.attention:
            raise InputError(
                f"attention_kernel: {config.attention_kernel}: does not say where an answer looks: choose sdpa, or "
                "rerank.attention=0"
            )
        description = describe(config)
        made = cls(description, *create_language_model(config, description), config.model.backbone)
        if config.train.init_from is not None:
            before = Path(config.train.init_from)
            if is_checkpoint(before) and (given := read_description(before)).task == "listwise":
                made._read_as(before, given)
        return made

    @classmethod
    def load(
        cls, folder: str | Path, description: RerankerDescription, kernel: AttentionKernel = "sdpa"
    ) -> "ListwiseReranker":
        """A checkpoint."""
        folder = Path(folder)
        made = cls(description, *load_language_model(folder, description, kernel), folder.resolve().parent.name)
        made._read_as(folder, description)
        return made

    def save(self, folder: str | Path) -> None:
        read = self._readings()
        save_checkpoint(
            Path(folder), self.description, self.language, self.processor, nn.ParameterDict(read) if read else None
        )

    def _readings(self) -> dict[str, Tensor]:
        """What candidates are read by, as checkpoints call it."""
        read = {} if self.relevance is None else {"weight": self.relevance.read.weight}
        if self.naming is not None:
            read |= {"naming_weight": self.naming.read.weight, "naming_bias": self.naming.read.bias}
        return read

    def _read_as(self, folder: Path, given: RerankerDescription) -> None:
        """As the listwise checkpoint in `folder`, which is `given`, reads: what both read. An InputError where it lacks
        any of what it should have.
        """
        lengths = {"weight": 1} if given.rerank.relevance else {}
        if given.rerank.naming:
            lengths |= dict.fromkeys(("naming_weight", "naming_bias"), given.rerank.candidates)
        if not lengths:
            return
        path, own = folder / "classifier.safetensors", self._readings()
        found = read_tensors(path)
        for name, length in lengths.items():
            if name not in found or len(found[name]) != length:
                raise InputError(f"{path}: {name}: not {length} rows of it: write the checkpoint again")
            if name not in own:
                continue
            if found[name].shape[1:] != own[name].shape[1:]:
                raise InputError(f"{path}: {name}: of another width than the backbone's: write the checkpoint again")
            known = min(len(own[name]), length)  # fewer candidates have fewer names
            own[name].data[:known] = found[name][:known]

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(
        self,
        inputs: ModelInput,
        labels: Int[Tensor, "b n"] | None = None,
        candidates: int = 0,
        target: Int[Tensor, " b"] | None = None,
    ) -> Taught:
        """For training: of the answers that `labels` show among the inputs (-100: no part of one), or of the answers
        that stand for the first so many candidates. `target`: the right ones, for `rerank.attention`.
        """
        inputs, settings = dict(inputs), self.description.rerank
        candidate, mask = inputs.pop("candidate"), inputs["attention_mask"].bool()
        plain = not (settings.relevance or settings.naming or settings.attention)
        if plain and labels is None:
            return Taught(answer_log_likelihoods(self.language, inputs, self.prompts.identifiers.trie(candidates)))
        layer, last = reading_layer(self.language), self.language.layers - 1
        with self.language.watching(min(layer, last)) if settings.attention else nullcontext() as watched:
            hidden, within = self.language.hidden(inputs) if plain else self.language.hidden_within(inputs, layer)
        if labels is None:
            rows = torch.arange(len(mask), device=mask.device)
            places = mask.long().cumsum(1).argmax(1)  # of each prompt's last token
            trie = self.prompts.identifiers.trie(candidates)
            likely = trie.log_likelihoods(self.language.logits(hidden[rows, places])[:, None])
        else:
            rows, following = (labels != -100).nonzero(as_tuple=True)
            places = following - 1
            log_probabilities = self.language.logits(hidden[rows, places]).log_softmax(-1)
            each = log_probabilities.gather(1, labels[rows, following][:, None])[:, 0]
            likely = each.new_zeros(len(labels)).index_add(0, rows, each)
        looks = None
        if watched is not None and target is not None:
            looks = looks_elsewhere(watched, rows, places, candidate, target)
        return Taught(
            likely,
            None if self.relevance is None else self.relevance(within, candidate),
            None if self.naming is None else self.naming(within, candidate),
            looks,
        )

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
                _, within = self.language.hidden_within(inputs, reading_layer(self.language), past)
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
