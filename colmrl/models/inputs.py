"""Records → model input: prompt, chat template, pictures, tokens, padding. Runs ahead of the model, on the CPU."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from colmrl.config import ModelConfig
from colmrl.data.media import open_image
from colmrl.data.records import Document, Query
from colmrl.errors import InputError
from colmrl.models.backbone import pixels_used

# A JPEG far larger than the model's budget is decoded at 1/2, 1/4 or 1/8, never below twice what is used in each
# direction: resizing from there is as good, and far cheaper (docs/reading.md).
_OVERSAMPLING = 4  # in pixels


class InputBuilder:
    """Turns queries and documents into padded batches for one backbone's processor."""

    def __init__(self, processor: Any, config: ModelConfig):
        self.processor = processor
        self.config = config
        self.tokenizer: Any = getattr(processor, "tokenizer", processor)
        self.sees_pictures = self.tokenizer is not processor
        self._enough_pixels = _OVERSAMPLING * pixels_used(processor) if self.sees_pictures else None
        self.harmless = harmless(self.tokenizer)

    def queries(self, queries: Sequence[Query]) -> dict[str, Tensor]:
        limit = self.config.max_query_tokens
        return self._batch(
            [(self.config.query_prompt, query.text, query.images, f"query {query.id!r}") for query in queries], limit
        )

    def documents(self, documents: Sequence[Document]) -> dict[str, Tensor]:
        limit, fields = self.config.max_document_tokens, self.config.document_fields
        return self._batch(
            [
                (
                    self.config.document_prompt,
                    document.body if "text" in fields else "",
                    document.images if "image" in fields else (),
                    f"document {document.id!r}",
                )
                for document in documents
            ],
            limit,
        )

    def _batch(self, records: list[tuple[str, str, tuple[str, ...], str]], limit: int) -> dict[str, Tensor]:
        for _, text, images, name in records:
            if not text and not images:
                raise InputError(f"{name}: nothing left of it under model.document_fields: name text, image or both")
            if images and not self.sees_pictures:
                raise InputError(
                    f"{name}: has a picture, but the backbone reads text only: model.document_fields=[text]"
                )
        if self.sees_pictures:
            return self._with_template(records, limit)
        texts = [prompt.replace("{text}", text) for prompt, text, _, _ in records]
        return dict(self.tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt"))

    def _with_template(self, records: list[tuple[str, str, tuple[str, ...], str]], limit: int) -> dict[str, Tensor]:
        prompts, pictures = [], []
        for prompt, text, images, name in records:
            content: list[dict[str, str]] = [{"type": "image"} for _ in images]
            text = prompt.replace("{text}", self.cut(self.harmless(text), limit))
            content += [{"type": "text", "text": text}] if text else []
            message = [{"role": "user", "content": content}]
            prompts.append(self.processor.apply_chat_template(message, tokenize=False))
            try:
                pictures += [open_image(image, self._enough_pixels) for image in images]
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
        try:
            batch = self.processor(text=prompts, images=pictures or None, padding=True, return_tensors="pt")
        except ValueError as error:  # e.g. a picture 200 times as wide as high
            raise InputError(f"one of {', '.join(r[-1] for r in records)}: the processor refuses it: {error}") from None
        return dict(batch)

    def cut(self, text: str, limit: int) -> str:
        """The first `limit` tokens of a text, as text: a template's closing tokens must not be cut."""
        if len(text.encode()) <= limit:  # a token is at least a byte
            return text
        encoded = self.tokenizer(
            text, add_special_tokens=False, truncation=True, max_length=limit, return_offsets_mapping=True
        )
        return text[: encoded["offset_mapping"][-1][1]]


def harmless(tokenizer: Any) -> Callable[[str], str]:
    """A record's own text must not open a picture or close a turn: what breaks up special tokens in it."""
    special = sorted(tokenizer.all_special_tokens, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, special)))
    return lambda text: pattern.sub(lambda match: match.group()[0] + " " + match.group()[1:], text)
