"""What a MultiVectorEncoder's or PyLate's folder says of queries and documents: prefixes, lengths, expansion, skiplist.

As sentence_transformers 6.2 reads both (multi_vector_encoder/model.py). PyLate puts its prefix behind the first token;
a prompt that the tokenizer keeps whole stands in the same place, where texts begin with a token of their own ([CLS]).
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from colmrl.config import ExpansionConfig, ModelConfig
from colmrl.errors import InputError
from colmrl.models.sources.source import read_json

_OF_PYLATE = (
    "query_prefix", "document_prefix", "do_query_expansion", "attend_to_expansion_tokens", "attend_to_mask_tokens",
    "skiplist_words", "query_length", "document_length",
)  # fmt: skip


def is_pylate(stated: Mapping[str, Any]) -> bool:
    return stated.get("model_type") == "ColBERT" or "query_prefix" in stated


def late_settings(
    model: ModelConfig, of_transformer: Mapping[str, Any], stated: Mapping[str, Any], masks: Sequence[Mapping[str, Any]]
) -> ModelConfig:
    """`of_transformer`: sentence_bert_config.json, `stated`: config_sentence_transformers.json, `masks`: of the
    MultiVectorMask modules."""
    settings = {**{name: stated[name] for name in _OF_PYLATE if stated.get(name) is not None}, **of_transformer}
    model = _prefixed(model, stated)
    expansion = _expansion(settings)
    if expansion is None:
        model = replace(model, max_query_tokens=settings.get("query_length") or model.max_query_tokens)
    else:
        model = replace(model, query_expansion=expansion[0], max_query_tokens=expansion[1] or model.max_query_tokens)
    model = replace(model, max_document_tokens=settings.get("document_length") or model.max_document_tokens)
    if not masks and is_pylate(stated):
        words = stated.get("skiplist_words")
        return replace(model, document_skiplist=tuple(string.punctuation if words is None else words))
    for mask in masks:
        model = _masked(model, mask)
    return model


def _expansion(settings: Mapping[str, Any]) -> tuple[ExpansionConfig, int | None] | None:
    """And how many tokens of a query are read."""
    if "query_expansion" in settings:
        stated = settings["query_expansion"]
        if stated is None:
            return None
        length, most = stated["length"], settings.get("query_length")
        cut = length if stated["strategy"] == "fixed" else (max(most, length) if most else None)
        return ExpansionConfig(length, stated.get("token"), bool(stated.get("attend"))), cut
    if not any(name in settings for name in _OF_PYLATE) or settings.get("do_query_expansion") is False:
        return None
    length = settings.get("query_length") or 32
    attend = settings.get("attend_to_expansion_tokens", settings.get("attend_to_mask_tokens"))
    return ExpansionConfig(length, None, bool(attend)), length


def _masked(model: ModelConfig, mask: Mapping[str, Any]) -> ModelConfig:
    words, tasks = tuple(mask.get("skiplist_words") or ()), mask.get("skiplist_tasks") or ["document"]
    tasks = [tasks] if isinstance(tasks, str) else tasks
    if "document" in tasks:
        model = replace(model, document_skiplist=words)
    if "query" in tasks:
        model = replace(model, query_skiplist=words)
    if (kept := mask.get("keep_only_token_ids")) is not None:
        image = (read_json(Path(model.backbone) / "config.json") or {}).get("image_token_id")
        if list(kept) != [image]:
            raise InputError(
                f"{model.backbone}: MultiVectorMask: keep_only_token_ids: {kept}: only those of pictures ([{image}]) "
                "can be told apart: leave it out"
            )
        model = replace(model, document_vectors="image")
    return model


def _prefixed(model: ModelConfig, stated: Mapping[str, Any]) -> ModelConfig:
    """PyLate's prefixes before the prompts, each kept whole where the tokenizer has such a token."""
    prompts, special = {"query": model.query_prompt, "document": model.document_prompt}, []
    for kind, prompt in prompts.items():
        prefix = stated.get(f"{kind}_prefix") or ""
        prompts[kind] = prefix + prompt.removeprefix(prefix)
        if known := _whole(Path(model.backbone), prefix):
            special.append(known)
    return replace(
        model, query_prompt=prompts["query"], document_prompt=prompts["document"], special_tokens=tuple(special)
    )


def _whole(folder: Path, prefix: str) -> str | None:
    """The token that stands for a prefix: itself, or its first word ("[unused0] ")."""
    if not prefix.strip():
        return None
    tokenizer = read_json(folder / "tokenizer.json") or {}
    named = {token["content"] for token in tokenizer.get("added_tokens", [])}
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    for token in (prefix, prefix.split(None, 1)[0]):
        if token in named or (isinstance(vocabulary, Mapping) and token in vocabulary):
            return token
    return None
