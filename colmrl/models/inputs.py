"""Records → model input: prompt, chat template, pictures, tokens, padding. Runs ahead of the model, on the CPU."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple

import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn.functional import pad

from colmrl.config import ModelConfig
from colmrl.data.media import open_image, picture_size
from colmrl.data.records import Document, Query
from colmrl.errors import InputError
from colmrl.models.chat import templated
from colmrl.models.positions import TEXT, Grid, positions_of
from colmrl.models.processors import picture_grids, pixels_used
from colmrl.models.scored import Scored

ModelInput = dict[str, Tensor]
Kind = Literal["query", "document"]
# The rest is of pictures, one after another.
OF_TOKENS = frozenset(
    {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "hidden", "positions", "pooled", "scored"}
    | {"candidate"}
)

# A JPEG far larger than the model's budget is decoded at 1/2, 1/4 or 1/8, never below twice what is used in each
# direction: resizing from there is as good, and far cheaper (docs/reading.md).
_OVERSAMPLING = 4  # in pixels
_CHARACTERS = 4  # of a token, about
_TOGETHER = 8  # records whose pictures are open at a time
_TOGETHER_PIXELS = 1 << 23  # of these pictures, about: what a processor call costs is little beside larger ones


class Told(NamedTuple):
    """What of a record the model is told; `limit` is of text tokens, `name` what messages call it."""

    prompt: str
    text: str
    images: tuple[str, ...]
    name: str
    limit: int
    kind: Kind = "document"
    instruction: str | None = None


class Opened(NamedTuple):
    """A record's text in its template, and its pictures; `name` is for messages."""

    text: str
    pictures: list[Image]
    name: str


class InputBuilder:
    """Turns queries and documents into padded batches for one backbone's processor.

    `each_query` and `each_document` give every record's own model input, with a batch dimension of 1 and no padding;
    `join` makes one batch of any of them, the same as if the processor had been given them together.
    """

    def __init__(self, processor: Any, config: ModelConfig):
        self.processor = processor
        self.config = config
        self.tokenizer: Any = getattr(processor, "tokenizer", processor)
        self.sees_pictures = self.tokenizer is not processor
        self._enough_pixels = _OVERSAMPLING * pixels_used(processor) if self.sees_pictures else None
        self._token_pixels = _token_pixels(processor) if self.sees_pictures else 0.0
        self.harmless = harmless(self.tokenizer)
        self.scored = Scored(config, self.tokenizer, getattr(processor, "image_token_id", None))

    def queries(self, queries: Sequence[Query]) -> ModelInput:
        return self.join(self.each_query(queries))

    def documents(self, documents: Sequence[Document]) -> ModelInput:
        return self.join(self.each_document(documents))

    def each_query(self, queries: Sequence[Query]) -> list[ModelInput]:
        return self.each([self.told_query(query) for query in queries])

    def each_document(self, documents: Sequence[Document]) -> list[ModelInput]:
        return self.each([self.told_document(document) for document in documents])

    def told_query(self, query: Query) -> Told:
        limit = self.config.max_query_tokens
        instruction, name = self.config.query_instruction, f"query {query.id!r}"
        return Told(self.config.query_prompt, query.text, query.images, name, limit, "query", instruction)

    def told_document(self, document: Document) -> Told:
        fields = self.config.document_fields
        return Told(
            self.config.document_prompt,
            document.body if "text" in fields else "",
            document.images if "image" in fields else (),
            f"document {document.id!r}",
            self.config.max_document_tokens,
            instruction=self.config.document_instruction,
        )

    def about(self, record: Query | Document) -> float:
        """How many tokens a record will take up, before anything is prepared: from the sizes in its pictures' headers
        and the length of its text. What cannot be read counts as nothing; preparing it says why.
        """
        told = self.told_document(record) if isinstance(record, Document) else self.told_query(record)
        text = min(len(told.text) / _CHARACTERS, told.limit)
        if not told.images or not self.sees_pictures:
            return text
        return text + sum(min(_area(image), pixels_used(self.processor)) for image in told.images) / self._token_pixels

    def join(self, records: Sequence[ModelInput]) -> ModelInput:
        """One batch of records, padded to the longest on the tokenizer's side; pictures follow one another."""
        longest = max(map(tokens, records))
        padding = {"input_ids": self.tokenizer.pad_token_id, "token_type_ids": self.tokenizer.pad_token_type_id}
        padding["positions"] = TEXT
        left = self.tokenizer.padding_side == "left"
        batch: ModelInput = {}
        for name in dict.fromkeys(name for record in records for name in record):
            parts = [record[name] for record in records if name in record]
            if name in OF_TOKENS:
                gaps = [longest - part.shape[1] for part in parts]
                parts = [
                    pad(part, (0, 0) * (part.ndim - 2) + ((gap, 0) if left else (0, gap)), value=padding.get(name, 0))
                    for part, gap in zip(parts, gaps, strict=True)
                ]
            batch[name] = torch.cat(parts) if len(parts) > 1 else parts[0]  # no copy of a page's pixels
        return batch

    def each(self, records: Sequence[Told]) -> list[ModelInput]:
        for record in records:
            if not record.text and not record.images:
                raise InputError(
                    f"{record.name}: nothing left of it under model.document_fields: name text, image or both"
                )
            if record.images and not self.sees_pictures:
                raise InputError(
                    f"{record.name}: has a picture, but the backbone reads text only: model.document_fields=[text]"
                )
        texts = iter(self._texts([record for record in records if not record.images]))  # all at once: far faster
        pictured = iter(self._pictured([record for record in records if record.images]))
        made = [next(pictured) if record.images else next(texts) for record in records]
        return [self.scored(one, record.kind) for one, record in zip(made, records, strict=True)]

    def _texts(self, records: Sequence[Told]) -> list[ModelInput]:
        if not records:
            return []
        if self.sees_pictures:
            encoded = self.processor(text=[self._templated(record) for record in records])
        else:
            texts = [record.prompt.replace("{text}", record.text) for record in records]
            encoded = self.tokenizer(texts, truncation=True, max_length=records[0].limit)
        made = [{name: torch.tensor([rows[i]]) for name, rows in encoded.items()} for i in range(len(records))]
        return [self._placed(one, []) for one in made] if self.sees_pictures else made

    def _pictured(self, records: Sequence[Told]) -> list[ModelInput]:
        made = [one for group in self._opened_together(records) for one in self._processed(group)]
        return [self._placed(one, [grid.positions() for grid in grids]) for one, grids in made]

    def _opened_together(self, records: Sequence[Told]) -> Iterator[list[Opened]]:
        """Some at a time, with their pictures; few of large ones, since all of them are in memory."""
        group, pixels = list[Opened](), 0
        for record in records:
            group.append(self._opened(self._templated(record), record.images, record.name))
            pixels += sum(picture.width * picture.height for picture in group[-1].pictures)
            if len(group) == _TOGETHER or pixels >= _TOGETHER_PIXELS:
                yield group
                group, pixels = [], 0
        if group:
            yield group

    def processed(self, text: str, images: Sequence[str], name: str) -> ModelInput:
        """What the processor makes of a text with its pictures; `name` is for messages."""
        return self._processed([self._opened(text, images, name)])[0][0]

    def _processed(self, records: Sequence[Opened]) -> list[tuple[ModelInput, list[Grid]]]:
        """What the processor makes of each text with its pictures, and how their tokens lie.

        One call, which costs what a small picture does; where it refuses them, one each tells which it refuses.
        """
        pictures = [picture for record in records for picture in record.pictures]
        texts = [record.text for record in records]
        try:
            made = dict(self.processor(text=texts, images=pictures or None, images_kwargs={"return_tensors": "pt"}))
        except ValueError as error:  # e.g. a picture 200 times as wide as high
            if len(records) > 1:
                return [one for record in records for one in self._processed([record])]
            raise InputError(f"{records[0].name}: the processor refuses it: {error}") from None
        seen = {name: values for name, values in made.items() if name not in OF_TOKENS}  # those are lists still
        grids = picture_grids(self.processor, seen, [picture.size for picture in pictures]) if pictures else []
        counts = [len(record.pictures) for record in records]
        return list(zip(_divided(made, counts, grids), _split(grids, counts), strict=True))

    def _opened(self, text: str, images: Sequence[str], name: str) -> Opened:
        try:
            return Opened(text, [open_image(image, self._enough_pixels) for image in images], name)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None

    def _placed(self, made: ModelInput, pictures: Sequence[Tensor]) -> ModelInput:
        """Told of each token where on its page it is; `pictures`: of the tokens of each."""
        return made | {"positions": positions_of(made["input_ids"], self.processor.image_token_id, pictures)}

    def _templated(self, record: Told) -> str:
        text = record.prompt.replace("{text}", self.cut(self.harmless(record.text), record.limit))
        if self.config.template == "none":
            if (room := text.count(self.processor.image_token)) != len(record.images):
                raise InputError(
                    f"{record.name}: {len(record.images)} pictures, but model.{record.kind}_prompt has room for {room}:"
                    " leave the others out"
                )
            return text
        content: list[dict[str, str]] = [{"type": "image"} for _ in record.images]
        content += [{"type": "text", "text": text}] if text else []
        turns = [{"role": "user", "content": content}]
        if record.instruction is not None:
            turns.insert(0, {"role": "system", "content": [{"type": "text", "text": record.instruction}]})
        more = {"add_generation_prompt": True} if self.config.generation_prompt else {}
        return templated(self.processor, turns, **more)

    def cut(self, text: str, limit: int) -> str:
        """The first `limit` tokens of a text, as text: a template's closing tokens must not be cut."""
        if len(text.encode()) <= limit:  # a token is at least a byte
            return text
        encoded = self.tokenizer(
            text, add_special_tokens=False, truncation=True, max_length=limit, return_offsets_mapping=True
        )
        return text[: encoded["offset_mapping"][-1][1]]

    def words(self, query: Query) -> dict[int, str]:
        """Of a query without pictures: where its own text stands among its tokens, and how each of those reads; what
        prompt and template add is left out.
        """
        told = self.told_query(query)
        whole = self._templated(told) if self.sees_pictures else told.prompt.replace("{text}", told.text)
        text = self.cut(self.harmless(told.text), told.limit) if self.sees_pictures else told.text
        start, limit = whole.rindex(text), None if self.sees_pictures else told.limit
        encoded = self.tokenizer(whole, truncation=limit is not None, max_length=limit, return_offsets_mapping=True)
        spans = enumerate(encoded["offset_mapping"])
        return {i: whole[a:b].strip() for i, (a, b) in spans if b > start and a < start + len(text) and a < b}


def _token_pixels(processor: Any) -> float:
    """How many of a picture's pixels, once it is resized, become one token."""
    images = processor.image_processor
    if hasattr(images, "merge_size"):
        return (images.patch_size * images.merge_size) ** 2
    return images.size.height * images.size.width / processor.image_seq_length


def _area(image: str) -> int:
    try:
        width, height = picture_size(image)
    except InputError:
        return 0
    return width * height


def _split(items: Sequence[Grid], counts: Sequence[int]) -> list[list[Grid]]:
    rest = iter(items)
    return [list(islice(rest, count)) for count in counts]


def _divided(made: Mapping[str, Any], pictures: Sequence[int], grids: Sequence[Grid]) -> list[ModelInput]:
    """Each record's own part of what the processor made of several; `pictures`: how many each has."""
    visual = [sum(grid.tokens for grid in some) for some in _split(grids, pictures)]
    divided: list[ModelInput] = [{} for _ in pictures]
    for name, values in made.items():
        if name in OF_TOKENS:
            parts = [torch.tensor([row]) for row in values]
        elif len(values) == len(grids):
            parts = values.split(list(pictures))
        else:  # patches or tiles: as many for each token
            each = len(values) / sum(visual)
            parts = values.split([round(count * each) for count in visual])
        for one, part in zip(divided, parts, strict=True):
            one[name] = part
    return divided


def tokens(record: Mapping[str, Tensor]) -> int:
    """Of a model input, visual ones and padding counted: what each of its records takes up."""
    return record["attention_mask"].shape[1]


def harmless(tokenizer: Any) -> Callable[[str], str]:
    """A record's own text must not open a picture or close a turn: what breaks up special tokens in it."""
    special = sorted(tokenizer.all_special_tokens, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, special)))
    return lambda text: pattern.sub(lambda match: match.group()[0] + " " + match.group()[1:], text)
