"""Which tokens of a record get a vector of the multi head: "scored", beside "attention_mask".

Query expansion and skiplist: ColBERT (arXiv:2004.12832), as PyLate and sentence-transformers do it. Visual tokens only:
colpali-engine's mask_non_image_embeddings.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from colmrl.config import ExpansionConfig, ModelConfig
from colmrl.errors import InputError


class Scored:
    """Model input of a record → the same with "scored", where the settings make it differ from the attention mask."""

    def __init__(self, config: ModelConfig, tokenizer: Any, image_token: int | None):
        self.expansion, self.left = config.query_expansion, tokenizer.padding_side == "left"
        self.expanded_with = _expansion_token(self.expansion, tokenizer) if self.expansion else 0
        self.padded_type: int = tokenizer.pad_token_type_id
        lists = {"query": config.query_skiplist, "document": config.document_skiplist}
        self.skipped = {kind: _ids(words, f"model.{kind}_skiplist", tokenizer) for kind, words in lists.items()}
        self.visual = image_token if config.document_vectors == "image" else None
        self.changes = bool(self.expansion or config.query_skiplist or config.document_skiplist or self.visual)

    def __call__(self, record: dict[str, Tensor], kind: Literal["query", "document"]) -> dict[str, Tensor]:
        if not self.changes:
            return record
        made = self._expanded(record) if kind == "query" and self.expansion else dict(record)
        ids = made["input_ids"]
        scored = made.pop("expanded", torch.zeros_like(ids, dtype=torch.bool)) | made["attention_mask"].bool()
        scored &= ~torch.isin(ids, self.skipped[kind])
        if kind == "document" and self.visual is not None and (seen := ids == self.visual).any():
            scored &= seen
        return made | {"scored": scored}

    def _expanded(self, record: dict[str, Tensor]) -> dict[str, Tensor]:
        assert self.expansion is not None
        missing = max(0, self.expansion.length - record["input_ids"].shape[1])
        attended = int(self.expansion.attend)
        filled = {"input_ids": self.expanded_with, "attention_mask": attended, "token_type_ids": self.padded_type}
        sides = (missing, 0) if self.left else (0, missing)
        made = {name: pad(part, sides, value=filled[name]) for name, part in record.items()}
        new = torch.zeros_like(record["input_ids"], dtype=torch.bool)
        return made | {"expanded": pad(new, sides, value=True)}


def _expansion_token(expansion: ExpansionConfig, tokenizer: Any) -> int:
    for token in [expansion.token] if expansion.token else [tokenizer.mask_token, tokenizer.eos_token]:
        if token is not None and (found := tokenizer.convert_tokens_to_ids(token)) not in (
            None,
            tokenizer.unk_token_id,
        ):
            return found
    raise InputError(
        f"model.query_expansion.token: {expansion.token!r}: the tokenizer has no such token: name one that it has"
    )


def _ids(words: Sequence[str], setting: str, tokenizer: Any) -> Tensor:
    """Of words that are one token; others cannot be in a text as such, and are no reason to skip unknown ones."""
    found = [tokenizer.convert_tokens_to_ids(word) for word in words]
    known = [one for word, one in zip(words, found, strict=True) if one is not None and _is_known(word, one, tokenizer)]
    if words and not known:
        raise InputError(
            f"{setting}: none of {', '.join(map(repr, words))} is a token of the tokenizer: leave it empty"
        )
    return torch.tensor(known, dtype=torch.long)


def _is_known(word: str, found: int, tokenizer: Any) -> bool:
    return found != tokenizer.unk_token_id or word == tokenizer.unk_token
