"""A store → a collection: what is new or changed goes in, what is gone goes out, the rest stays.

What is there is asked of the database itself, so the same command goes on after a kill, and brings a collection up to
date after encode.py --append and colmrl store remove.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colmrl.config import Config
from colmrl.data.fingerprint import record_hash
from colmrl.data.reading import read_collection
from colmrl.data.records import Document, Records
from colmrl.database.address import Address
from colmrl.database.collection import About, Collection, Point
from colmrl.database.connecting import connect
from colmrl.errors import InputError
from colmrl.files import check_room, locked
from colmrl.progress import track
from colmrl.store import EmbeddingStore
from colmrl.store.writer import live_rows
from colmrl.view import View

log = logging.getLogger(__name__)
_NUMBERS = 400_000  # of vectors sent at a time: 8 MB of JSON, where a server takes 32
_MOST = 500  # documents at a time
_PAGE = 1000  # documents taken out at a time
_FIXED_BYTES = 128 << 20  # of a folder's database, whatever is in it: logs and chunks that are made in advance


@dataclass(frozen=True)
class Exported:
    """How many documents were put in, put in anew, taken out, and left."""

    address: Address
    documents: int
    added: int
    changed: int
    removed: int
    size_bytes: int | None

    @property
    def kept(self) -> int:
        return self.documents - self.added - self.changed


def export_index(
    config: Config,
    store: str | Path,
    views: Sequence[View],
    address: Address,
    token: str | None = None,
    opened: Collection | None = None,
) -> Exported:
    """Raises InputError, and leaves the collection alone, where it is of another checkpoint or other views, or where
    the data (`config.data.path`, else the store's) is no longer what was encoded. `opened`: the collection, where it
    is open already.
    """
    documents = EmbeddingStore(Path(store) / "documents")
    for view in views:
        documents.array_of(view)
    with nullcontext() if address.remote else locked(address.folder, beside=True, remedy="run a Qdrant server"):
        return _exported(config, documents, views, address, token, opened)


def _exported(
    config: Config,
    documents: EmbeddingStore,
    views: Sequence[View],
    address: Address,
    token: str | None,
    opened: Collection | None,
) -> Exported:
    about = About.of(documents, views)
    collection = opened or connect(address, token)
    try:
        stated = collection.about()
        if stated is not None:
            _check_same(address, stated, about)
        records = _Payloads(config, documents)
        wanted = records.hashes()
        if stated is None:
            _check_room(address, documents, views)
            collection.create(about, views)
        there = dict(collection.hashes())
        gone = [name for name in there if name not in wanted]
        rows = [row for row, name in enumerate(documents.ids) if there.get(name) != wanted[name]]
        changed = sum(documents.ids[row] in there for row in rows)
        if there and len(there) - len(gone) - changed:
            log.info("%s: %s documents are there already", address, f"{len(there) - len(gone) - changed:,}")
        if gone or rows:
            collection.state(about)  # unfinished, until all is there
            _bring(collection, documents, views, records, rows, gone)
        collection.state(about.at(documents.stamp))
        return Exported(address, len(documents), len(rows) - changed, changed, len(gone), collection.size_bytes())
    finally:
        if opened is None:
            collection.close()


def _check_room(address: Address, documents: EmbeddingStore, views: Sequence[View]) -> None:
    """The engine maps its files into memory: where the disk is full it does not fail, the process dies (SIGBUS)."""
    if address.remote:
        return
    sizes = [4 * view.dim * documents.vectors_per_record(view) for view in views]
    wanted = _FIXED_BYTES + int(1.5 * sum(sizes) * len(documents))
    check_room(address.folder, wanted)


class _Payloads:
    """Each document's payload, and the hash of all that goes into its point."""

    def __init__(self, config: Config, documents: EmbeddingStore):
        manifest = documents.manifest
        self._data = config.data.path or manifest.data
        self._records: Records[Document] = read_collection(self._data, config.data, manifest.show).documents
        self._stated = live_rows(documents.folder, manifest)

    def hashes(self) -> dict[str, str]:
        return {name: self._read(name)[1] for name in track(self._stated, "read", len(self._stated))}

    def of(self, name: str) -> tuple[dict[str, Any], str]:
        return self._read(name)

    def _read(self, name: str) -> tuple[dict[str, Any], str]:
        there = name in self._records.position
        record = self._records.named(name) if there else None
        if record is None or record_hash(record) != self._stated[name][1]:
            said = "is another document now" if there else "is not there"
            raise InputError(
                f"{self._data}: {name!r} {said}: give the data that the store was encoded from (data.path)"
            )
        meta = json.loads(json.dumps(dict(record.meta), default=str))
        payload = {"text": record.text, "title": record.title, "images": list(record.images), "meta": meta}
        content = json.dumps([self._stated[name][1], payload], sort_keys=True)
        return payload, hashlib.sha256(content.encode()).hexdigest()[:32]


def _bring(
    collection: Collection,
    documents: EmbeddingStore,
    views: Sequence[View],
    records: _Payloads,
    rows: list[int],
    gone: list[str],
) -> None:
    for start in range(0, len(gone), _PAGE):
        collection.delete(gone[start : start + _PAGE])
    numbers = sum(view.dim * documents.vectors_per_record(view) for view in views)
    size = max(1, min(_MOST, int(_NUMBERS / numbers)))
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    for batch in track(batches, "export", len(batches)):
        vectors = {view.slug: _vectors(documents, view, batch) for view in views}
        points = []
        for place, row in enumerate(batch):
            payload, digest = records.of(documents.ids[row])
            of_each = {name: each[place] for name, each in vectors.items()}
            points.append(Point(documents.ids[row], digest, of_each, payload))
        collection.upsert(points)
    collection.settle()


def _vectors(documents: EmbeddingStore, view: View, rows: list[int]) -> list[np.ndarray]:
    if view.head == "single":
        return list(documents.single_rows(view, rows))
    return [item.numpy() for item in documents.multi_rows(view, rows).unpack()]


def _check_same(address: Address, stated: About, about: About) -> None:
    """Raise an InputError unless both are of one checkpoint, with the same views made in the same way."""
    other = "export into another --collection, or delete that one in the database"
    if stated.fingerprint != about.fingerprint:
        raise InputError(
            f"{address}: holds vectors of another checkpoint ({stated.fingerprint}, the store's is "
            f"{about.fingerprint}): {other}"
        )
    if sorted(stated.views) != sorted(about.views):
        views = ",".join(stated.views)
        raise InputError(f"{address}: holds views {views}: give --views {views}, or {other}")
    if (stated.pooling, stated.position_weight) != (about.pooling, about.position_weight):
        raise InputError(f"{address}: holds vectors pooled otherwise ({stated.pooling}): {other}")
