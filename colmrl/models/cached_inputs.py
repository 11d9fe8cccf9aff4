"""Model inputs whose costly part was computed before: pictures as the frozen tower's features, or hidden states.

Neither opens a picture: its file is only hashed, so that one that changed is never taken for what it was.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import torch

from colmrl.data.media import content_hash
from colmrl.errors import InputError
from colmrl.models.feature_cache import Entry, FeatureCache
from colmrl.models.inputs import InputBuilder, ModelInput, Told

TILES = "num_patches"  # the processors' name for a picture's rows of pixel_values


class CachedInputs(InputBuilder, ABC):
    """What both have in common; `what` messages call an entry."""

    what: str

    def __init__(self, inputs: InputBuilder, cache: FeatureCache):
        super().__init__(inputs.processor, inputs.config)
        self.cache = cache

    @abstractmethod
    def work(self, record: Told) -> Iterable[tuple[str, Told]]:
        """Each entry that the record needs: its key, and a record that gives it."""

    def _entry(self, key: str, name: str) -> Entry:
        entry = self.cache.read(key)
        if entry is None:
            raise InputError(f"{name}: not in train.tower_cache: a picture changed during the run: run again")
        return entry


class CachedPictures(CachedInputs):
    """A picture's entry: its features, where each is on it, and what tells the processor how many tokens to make room
    for."""

    what = "picture"

    def work(self, record: Told) -> Iterable[tuple[str, Told]]:
        for image in record.images:
            yield _picture_key(image, record.name), Told("", "", (image,), record.name, 1)

    def _pictured(self, records: Sequence[Told]) -> list[ModelInput]:
        return [self._with_features(record) for record in records]

    def _with_features(self, record: Told) -> ModelInput:
        seen = [self._entry(_picture_key(image, record.name), f"{record.name}: {image}") for image in record.images]
        pictures = {name: torch.cat([one[name] for one in seen]) for name in seen[0]}
        tokens = [self.processor.replace_image_token(pictures, place) for place in range(len(seen))]
        text, _ = self.processor.get_text_with_replacements([self._templated(record)], tokens)
        encoded = self.tokenizer(text)
        if self.processor.return_mm_token_type_ids:
            encoded["mm_token_type_ids"] = self.processor.create_mm_token_type_ids(encoded["input_ids"])
        del pictures[TILES], pictures["positions"]
        made = {name: torch.tensor(rows) for name, rows in encoded.items()} | pictures
        return self._placed(made, [one["positions"] for one in seen])


class CachedStates(CachedInputs):
    """A record's entry: the backbone's last hidden states, a row a token, and where each is on its page."""

    what = "record"

    def work(self, record: Told) -> Iterable[tuple[str, Told]]:
        yield _record_key(record), record

    def each(self, records: Sequence[Told]) -> list[ModelInput]:
        built = []
        for record in records:
            states = {name: rows[None] for name, rows in self._entry(_record_key(record), record.name).items()}
            mask = torch.ones(states["hidden"].shape[:2], dtype=torch.long)
            built.append(states | {"attention_mask": mask})
        return built


def _picture_key(image: str, name: str) -> str:
    try:
        return content_hash(image)[:32]
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def _record_key(record: Told) -> str:
    pictures = [_picture_key(image, record.name) for image in record.images]
    told = json.dumps([record.prompt, record.text, pictures, record.limit])
    return hashlib.sha256(told.encode()).hexdigest()[:32]
