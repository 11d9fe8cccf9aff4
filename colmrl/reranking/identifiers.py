"""What candidates are called in a listwise prompt, and how likely each name is as the answer.

Letters are one token each, so that one forward pass's logits at the answer position rank all candidates (FIRST,
arXiv:2406.15657). Numbers may be several tokens ("12" is two in Qwen's tokenizer): the whole answer is scored, its end
included, so that "1" takes nothing from "12". The answers form a trie; all its nodes go through the model at once, each
seeing the prompt and its ancestors alone (tree attention, SpecInfer, arXiv:2305.09781).

Letters: b prompts, c candidates, t nodes of the trie, v vocabulary.
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from colmrl.errors import InputError

Kind = Literal["letters", "numbers"]


@dataclass(frozen=True)
class Trie:
    """Answers that share their first tokens. A node is a token that something of an answer follows.

    `tokens`, `parents` [t]: of each node, parents first; parent -1 is the end of the prompt. `steps`: of each answer
    its tokens, each with the node that it follows.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    steps: tuple[tuple[tuple[int, int], ...], ...]

    @classmethod
    def of(cls, answers: Sequence[Sequence[int]]) -> "Trie":
        nodes: dict[tuple[int, ...], int] = {(): -1}
        parents: list[int] = []
        for length in range(1, max(map(len, answers))):
            for answer in answers:
                path = tuple(answer[:length])
                if len(answer) > length and path not in nodes:
                    nodes[path] = len(parents)
                    parents.append(nodes[path[:-1]])
        steps = [[(nodes[tuple(answer[:i])], token) for i, token in enumerate(answer)] for answer in answers]
        return cls(tuple(path[-1] for path in nodes if path), tuple(parents), tuple(map(tuple, steps)))

    @cached_property
    def depths(self) -> Int[Tensor, " t"]:
        """How many tokens after the prompt's last each node stands."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(1 if parent < 0 else depths[parent] + 1)
        return torch.tensor(depths, dtype=torch.long)

    @cached_property
    def sees(self) -> Bool[Tensor, "t t"]:
        """Each node its ancestors and itself."""
        sees = torch.eye(len(self.parents), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                sees[node] |= sees[parent]
        return sees

    def log_likelihoods(self, logits: Float[Tensor, "b t1 v"]) -> Float[Tensor, "b c"]:
        """Of each answer in full, among all texts there are. `logits`: at the prompt's end, then at each node."""
        log_probabilities = logits.float().log_softmax(-1)
        each = [
            sum((log_probabilities[:, node + 1, token] for node, token in steps), log_probabilities.new_zeros(()))
            for steps in self.steps
        ]
        return torch.stack(each, 1)


@dataclass(frozen=True)
class Identifiers:
    """`names` of candidates in order; `answers`: the tokens that say each, as the model is trained to write them."""

    kind: Kind
    names: tuple[str, ...]
    answers: tuple[tuple[int, ...], ...]
    shown: tuple[tuple[int, ...], ...]  # an identifier's tokens in front of its candidate: without an end

    @classmethod
    def of(cls, kind: Kind, count: int, tokenizer: Any) -> "Identifiers":
        """InputError where the tokenizer cuts a letter in pieces, or letters run out."""
        if kind == "letters" and count > len(string.ascii_uppercase):
            raise InputError(f"rerank.candidates: {count}: there are 26 letters: lower it, or choose numbers")
        names = string.ascii_uppercase[:count] if kind == "letters" else [str(i + 1) for i in range(count)]
        shown = [tuple(tokenizer(name, add_special_tokens=False)["input_ids"]) for name in names]
        if kind == "letters" and any(len(one) > 1 for one in shown):
            cut = next(name for name, one in zip(names, shown, strict=True) if len(one) > 1)
            raise InputError(
                f"rerank.identifiers: letters: {cut!r} is several tokens of this tokenizer: choose numbers"
            )
        end = (tokenizer.eos_token_id,) if kind == "numbers" else ()
        return cls(kind, tuple(names), tuple(one + end for one in shown), tuple(shown))

    def trie(self, count: int) -> Trie:
        """Of the first `count` answers: the others stand for no candidate."""
        return Trie.of(self.answers[:count])
