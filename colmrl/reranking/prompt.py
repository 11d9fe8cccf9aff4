"""A prompt in parts, each tokenised by itself and once: what comes first | a document | … | what comes last.

Parts are cut where the tokenizer would cut anyway (after a line break, at a special token), so that the whole has the
tokens that it would have in one piece. The chat template is the processor's own.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from colmrl.config import ModelConfig
from colmrl.data.records import Document, Query
from colmrl.errors import InputError
from colmrl.models.chat import templated, unusable
from colmrl.models.inputs import OF_TOKENS, InputBuilder, ModelInput, Told

_KEPT_BYTES = 512 * 2**20  # of documents' tokens and pictures
_HERE, _THERE = "HERE-IT-STANDS", "THERE-IT-STANDS"  # in no template


@dataclass(frozen=True)
class Segment:
    """A part of a prompt as text, with the processor's placeholder where a picture stands; `name` is for messages."""

    text: str
    images: tuple[str, ...] = ()
    name: str = "prompt"


class Prompts:
    """Segments of prompts for one processor. `head` and `tail` are what the chat template puts around what a user says
    after `system` was said (without a template, `system` is said first on a line of its own); `picture` is
    what stands for one.
    """

    def __init__(self, processor: Any, config: ModelConfig, system: str = ""):
        self.inputs = InputBuilder(processor, config)
        self.sees_pictures = self.inputs.sees_pictures
        self.tokenizer = self.inputs.tokenizer
        self._processor = processor
        self.head, self.tail = self._around(system)
        self.picture = self._placeholder() if self.sees_pictures else ""
        self._kept = _Kept(_KEPT_BYTES)

    def query(self, query: Query, before: str = "", after: str = "") -> Segment:
        return self.segment(self.inputs.told_query(query), before, after)

    def document(self, document: Document, before: str = "", after: str = "") -> ModelInput:
        """Its tokens and pictures; what was asked for before is kept, as far as memory for it goes."""
        key = document.id, document.body, document.images, before, after
        return self._kept.get(
            key, lambda: self.tokens(self.segment(self.inputs.told_document(document), before, after))
        )

    def segment(self, told: Told, before: str = "", after: str = "") -> Segment:
        """A record's pictures and then its text ("NULL" where it has neither), between texts of the prompt."""
        if told.images and not self.sees_pictures:
            raise InputError(
                f"{told.name}: has a picture, but the backbone reads text only: model.document_fields=[text]"
            )
        text = told.prompt.replace("{text}", self.inputs.cut(self.inputs.harmless(told.text), told.limit))
        shown = self.picture * len(told.images) + text
        return Segment(f"{before}{shown or 'NULL'}{after}", told.images, told.name)

    def tokens(self, segment: Segment) -> ModelInput:
        """A model input with a batch dimension of 1."""
        if self.sees_pictures:
            return self.inputs.processed(segment.text, segment.images, segment.name)
        encoded = self.tokenizer(segment.text, add_special_tokens=False)
        return {name: torch.tensor([rows], dtype=torch.long) for name, rows in encoded.items()}

    def _around(self, system: str) -> tuple[str, str]:
        if self._processor.chat_template is None:
            return (f"{system}\n" if system else ""), "\n"

        def said(role: str, text: str) -> dict[str, Any]:
            return {"role": role, "content": [{"type": "text", "text": text}] if self.sees_pictures else text}

        messages = ([said("system", system)] if system else []) + [said("user", _HERE)]
        parts = self._templated(messages, True).split(_HERE)
        if len(parts) != 2:
            raise unusable(self._processor, "it does not show a turn's text once")
        return parts[0], parts[1]

    def _placeholder(self) -> str:
        content = [{"type": "text", "text": _HERE}, {"type": "image"}, {"type": "text", "text": _THERE}]
        whole = self._templated([{"role": "user", "content": content}], False)
        return whole.partition(_HERE)[2].partition(_THERE)[0]

    def _templated(self, messages: list[dict[str, Any]], answers: bool) -> str:
        options = {} if self.sees_pictures else {"enable_thinking": False}  # Qwen3's: it answers at once
        return templated(self._processor, messages, add_generation_prompt=answers, **options)


def join(parts: Sequence[ModelInput]) -> ModelInput:
    """One prompt of its parts, in order."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: torch.cat([part[name] for part in parts if name in part], 1 if name in OF_TOKENS else 0) for name in names
    }


class _Kept:
    """Model inputs by key; the ones that were not asked for longest go when there are too many bytes of them."""

    def __init__(self, most_bytes: int):
        self._most, self._bytes = most_bytes, 0
        self._items: OrderedDict[Hashable, ModelInput] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], ModelInput]) -> ModelInput:
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key]
        made = make()
        with self._lock:
            if key not in self._items:
                self._items[key] = made
                self._bytes += _bytes(made)
            while self._bytes > self._most:
                self._bytes -= _bytes(self._items.popitem(last=False)[1])
        return made


def _bytes(made: ModelInput) -> int:
    return sum(tensor.nbytes for tensor in made.values())
