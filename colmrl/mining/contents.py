"""Which documents show the same: text and pictures, told apart by as little reading as that takes."""

import hashlib
import json

import numpy as np
from jaxtyping import Int

from colmrl.data import media
from colmrl.data.records import Document, Records


class Contents:
    """Documents by content: each is known by the first one met that shows the same. Read once, when first asked for;
    pictures are hashed only where another document has the same text and pictures of the same sizes in bytes.
    """

    def __init__(self, documents: Records[Document], ids: list[str]):
        self._documents, self._ids = documents, ids
        self._same_as = np.full(len(ids), -1, dtype=np.int64)
        self._first: dict[bytes, int] = {}  # text and sizes → row
        self._exact: dict[str, int] = {}  # text and pictures → row, of those that share text and sizes

    def of(self, rows: Int[np.ndarray, "*n"]) -> Int[np.ndarray, "*n"]:
        """For each row of `ids` (-1: none) the first one met with its content."""
        asked = np.unique(rows[rows >= 0])
        for row in asked[self._same_as[asked] < 0]:
            self._same_as[row] = self._find(int(row))
        return np.where(rows >= 0, self._same_as[rows], -1)

    def _find(self, row: int) -> int:
        document = self._documents.named(self._ids[row])
        sizes = [media.stamp(image)[1] for image in document.images]
        rough = hashlib.blake2b(json.dumps([document.body, sizes]).encode(), digest_size=16).digest()
        first = self._first.setdefault(rough, row)
        if first == row or not document.images:
            return first
        self._exact.setdefault(_shown(self._documents.named(self._ids[first])), first)
        return self._exact.setdefault(_shown(document), row)


def _shown(document: Document) -> str:
    return json.dumps([document.body, *map(media.content_hash, document.images)])
