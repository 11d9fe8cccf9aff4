"""Records → lengths, picture sizes, tokens and content, in one pass that keeps numbers and never the records.

Tokens are the model's own: of a picture as many as its processor says for the size, which no pixel is needed for. (A
JPEG far above the model's budget is decoded smaller, and may then have a row or column of tokens more or fewer.)
"""

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoModel

from colmrl.config import ModelConfig
from colmrl.data.media import content_hash, open_image, picture_size
from colmrl.data.records import Document, Query, Records
from colmrl.errors import InputError
from colmrl.models.chat import templated
from colmrl.models.inputs import InputBuilder
from colmrl.progress import track

OPENED = 200  # pictures that are decoded, at most: of a data set's queries, and of its documents
NAMED = 5  # examples that are kept of whatever is found
_BATCH = 256  # records

Shown = tuple[str, tuple[str, ...]]  # a record's text and pictures, as the model is given them


@dataclass(frozen=True)
class Spread:
    low: float
    median: float
    p95: float
    high: float

    @classmethod
    def of(cls, values: Sequence[int] | np.ndarray) -> "Spread | None":
        """None where there are no values."""
        return cls(*np.quantile(values, (0, 0.5, 0.95, 1)).tolist()) if len(values) else None


@dataclass
class Faults:
    """How many, and the first of them."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        self.count += 1
        if len(self.examples) < NAMED:
            self.examples.append(example)


def shown(record: Query | Document, model: ModelConfig) -> Shown:
    if isinstance(record, Query):
        return record.text, record.images
    fields = model.document_fields
    return record.body if "text" in fields else "", record.images if "image" in fields else ()


class TokenCounter:
    """What an `InputBuilder` would make of records, counted."""

    def __init__(self, processor: Any, model: ModelConfig):
        self._builder = InputBuilder(processor, model)
        self._processor = processor
        self._known: dict[tuple[int, int], int | None] = {}
        self.sees_pictures = self._builder.sees_pictures
        # Tokens that a picture brings besides the visual ones, such as <img> and </img>: seen on one blank picture.
        self._brackets = self._brackets_of_a_picture() if self.sees_pictures else 0

    def texts(self, records: Sequence[Shown], prompt: str, limit: int) -> tuple[list[int], list[int]]:
        """Tokens of each text before it is cut, and of the whole input save for its visual tokens.

        Where the cut falls upon prompt and special tokens too, as it does for text models, the text's are with them.
        """
        builder = self._builder
        if not self.sees_pictures:
            whole = self._lengths([prompt.replace("{text}", text) for text, _ in records])
            return whole, [min(tokens, limit) for tokens in whole]
        harmless = [builder.harmless(text) for text, _ in records]
        inputs = [
            self._templated(prompt.replace("{text}", builder.cut(text, limit)), len(images))
            for text, (_, images) in zip(harmless, records, strict=True)
        ]
        brackets = [len(images) * (self._brackets - 1) for _, images in records]  # less the placeholder
        lengths = [tokens + more for tokens, more in zip(self._lengths(inputs), brackets, strict=True)]
        return self._lengths(harmless, add_special_tokens=False), lengths

    def visual(self, size: tuple[int, int]) -> int | None:
        """Visual tokens of a picture of this width and height; None where the processor refuses such a picture."""
        if size not in self._known:
            try:
                self._known[size] = self._replacing(size) - self._brackets
            except ValueError:
                self._known[size] = None
        return self._known[size]

    def _replacing(self, size: tuple[int, int]) -> int:
        """Tokens in place of a picture's placeholder, by the processor's own arithmetic (vLLM's hook)."""
        width, height = size
        return self._processor._get_num_multimodal_tokens(image_sizes=[(height, width)])["num_image_tokens"][0]

    def _brackets_of_a_picture(self) -> int:
        prompt, size = self._templated("a", 1), (96, 64)
        inputs = self._processor(text=[prompt], images=[Image.new("RGB", size)], return_tensors="pt")["input_ids"]
        replacing = inputs.shape[1] - self._lengths([prompt])[0] + 1
        assert replacing == self._replacing(size), "the processor does not do what it says"
        return replacing - int((inputs == self._processor.image_token_id).sum())

    def _templated(self, text: str, pictures: int) -> str:
        content = [{"type": "image"}] * pictures + ([{"type": "text", "text": text}] if text else [])
        return templated(self._processor, [{"role": "user", "content": content}])

    def _lengths(self, texts: list[str], **options: Any) -> list[int]:
        return [len(ids) for ids in self._builder.tokenizer(texts, verbose=False, **options)["input_ids"]]


def language_parameters(source: str) -> int:
    """Parameters of a backbone's language model without its table of embeddings; no weights are loaded."""
    with torch.device("meta"):
        model: Any = AutoModel.from_config(AutoConfig.from_pretrained(source, trust_remote_code=False))
    language = getattr(model, "language_model", model)
    return sum(p.numel() for p in language.parameters()) - language.get_input_embeddings().weight.numel()


class Measured:
    """One number a record in each array. `content` is 0 for a record of which nothing is left to show."""

    def __init__(self, records: int, seed: int):
        self.characters, self.tokens, self.inputs, self.visual = (np.zeros(records, np.int64) for _ in range(4))
        self.content = np.zeros(records, np.uint64)
        self.sizes = Counter[tuple[int, int]]()  # of pictures
        self.pictures, self._whole = 0, 0  # all, and those whose size could be read
        self.damaged, self.empty, self.refused, self.unseen = Faults(), Faults(), Faults(), Faults()
        self.drawn: list[str] = []  # pictures to be opened, a fair sample of all
        self._random = random.Random(seed)

    def look(self, place: int, record: Query | Document, what: Shown, counter: TokenCounter | None) -> None:
        """Everything but the text's tokens."""
        text, images = what
        self.characters[place] = len(text)
        if not text and not images:
            return self.empty.add(record.id)
        if images and counter and not counter.sees_pictures:
            self.unseen.add(record.id)
        self.content[place] = _content(text.casefold() if isinstance(record, Query) else text, images)
        self.pictures += len(images)
        for reference in images:
            try:
                size = picture_size(reference)
            except InputError as error:
                self.damaged.add(str(error))
                continue
            self.sizes[size] += 1
            self._draw(reference)
            if counter and counter.sees_pictures:
                tokens = counter.visual(size)
                if tokens is None:
                    self.refused.add(f"{record.id} ({size[0]}×{size[1]})")
                self.visual[place] += tokens or 0
        return None

    def _draw(self, reference: str) -> None:
        """Reservoir sampling (Vitter 1985): each picture is in the sample with the same chance."""
        self._whole += 1
        if len(self.drawn) < OPENED:
            self.drawn.append(reference)
        elif (slot := self._random.randrange(self._whole)) < OPENED:
            self.drawn[slot] = reference


def measure(
    records: Records[Query] | Records[Document], model: ModelConfig, counter: TokenCounter | None, seed: int, kind: str
) -> Measured:
    """One pass over `records`; without a `counter` there are no tokens."""
    found = Measured(len(records), seed)
    prompt, limit = model.document_prompt, model.max_document_tokens
    if kind == "queries":
        prompt, limit = model.query_prompt, model.max_query_tokens
    starts = range(0, len(records), _BATCH)
    for start in track(starts, f"looking at {kind}", len(starts)):
        some = records[start : start + _BATCH]
        given = [shown(record, model) for record in some]
        for i, (record, what) in enumerate(zip(some, given, strict=True)):
            found.look(start + i, record, what, counter)
        if counter:
            here = slice(start, start + len(some))
            found.tokens[here], found.inputs[here] = counter.texts(given, prompt, limit)
    found.inputs += found.visual
    for reference in track(found.drawn, f"opening pictures of {kind}", len(found.drawn)):
        try:
            open_image(reference)
        except InputError as error:
            found.damaged.add(str(error))
    return found


def _content(text: str, images: tuple[str, ...]) -> int:
    """64 bits of the text, its white space evened out, and of the pictures' bytes; 0 is kept for nothing."""
    digest = hashlib.blake2b(" ".join(text.split()).encode(), digest_size=8)
    for reference in images:
        try:
            digest.update(b"\0" + content_hash(reference).encode())
        except InputError:  # it is damaged too, and counted as such: equal to no other
            digest.update(b"\0" + reference.encode())
    return int.from_bytes(digest.digest()) or 1
