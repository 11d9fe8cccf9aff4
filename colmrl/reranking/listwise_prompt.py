"""The listwise prompt: what is asked, then the candidates, each behind its identifier, then the call for the best one.

    <head> query or history | Candidates: | [A] first | [B] second | … | Answer with the letter … <tail>

The part before the candidates is the same for every window and order of them (`opening`); a candidate is tokenised
once, whatever its identifier (`candidates`).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import pad

from colmrl.config import ModelConfig, RerankConfig
from colmrl.data.records import Document, Query
from colmrl.errors import InputError
from colmrl.models.inputs import ModelInput
from colmrl.reranking.identifiers import Identifiers
from colmrl.reranking.prompt import Prompts, Segment, join

_CANDIDATES = "\n\nCandidates:\n"
_CALL = {
    "letters": "Answer with the letter of the best candidate.",
    "numbers": "Answer with the number of the best candidate.",
}


class ListwisePrompts:
    """Prompts of one processor; `identifiers`: of as many candidates as a prompt holds."""

    def __init__(self, processor: Any, model: ModelConfig, rerank: RerankConfig):
        self.prompts = Prompts(processor, model, rerank.instruction)
        self.identifiers = Identifiers.of(rerank.identifiers, rerank.candidates, self.prompts.tokenizer)
        self._names = [self._tokens(name) for name in self.identifiers.names]
        opened, closed = self._tokens("["), self._tokens("]")
        self._labels = [join([opened, name, closed]) for name in self._names]
        self._call = self._tokens(_CALL[rerank.identifiers] + self.prompts.tail)
        self._end = self._tokens(self.prompts.tokenizer.eos_token) if rerank.identifiers == "numbers" else None

    def opening(self, query: Query) -> ModelInput:
        """All that stands before the candidates."""
        return self.prompts.tokens(self.prompts.query(query, self.prompts.head, _CANDIDATES))

    def candidates(self, documents: Sequence[Document]) -> ModelInput:
        """The candidates in this order, and what stands after them."""
        return join([*self._listed(documents), self._call])

    def marked(self, documents: Sequence[Document], opening: ModelInput | None = None) -> ModelInput:
        """The same, behind an opening or without; `candidate`: which one each token is of, from 1; 0: of none."""
        parts = [*self._listed(documents), self._call]
        numbers = [*range(1, len(documents) + 1), 0]
        if opening is not None:
            parts, numbers = [opening, *parts], [0, *numbers]
        each = [torch.full_like(part["input_ids"], number) for part, number in zip(parts, numbers, strict=True)]
        return join(parts) | {"candidate": torch.cat(each, 1)}

    def answered(self, prompt: ModelInput, place: int) -> ModelInput:
        """A prompt and its answer."""
        answer = self.answer(place)
        whole = join([prompt, answer])
        return whole | {"candidate": pad(prompt["candidate"], (0, answer["input_ids"].shape[1]))}

    def _listed(self, documents: Sequence[Document]) -> list[ModelInput]:
        """Each candidate behind its identifier."""
        if len(documents) > len(self._labels):
            said = f"{len(documents)} candidates in one prompt of {len(self._labels)}"
            raise InputError(f"rerank.candidates: {said}: raise it, or let windows slide over them")
        shown = [self.prompts.document(document, " ", "\n") for document in documents]
        return [join(pair) for pair in zip(self._labels, shown, strict=False)]

    def answer(self, place: int) -> ModelInput:
        """What the model is to write where the candidate in this place is the best."""
        return self._names[place] if self._end is None else join([self._names[place], self._end])

    def join(self, prompts: Sequence[ModelInput]) -> ModelInput:
        """One batch, padded."""
        return self.prompts.inputs.join(prompts)

    def _tokens(self, text: str) -> ModelInput:
        return self.prompts.tokens(Segment(text))
