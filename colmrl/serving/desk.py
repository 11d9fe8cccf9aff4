"""What the page asks, answered by one opened store: plain values that become JSON."""

import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from colmrl.data.records import Query
from colmrl.errors import InputError
from colmrl.models.retriever import Embeddings
from colmrl.search import Plan
from colmrl.search.index_files import check_index, read_facts
from colmrl.serving.offers import bytes_of, offers
from colmrl.serving.pictures import Encoded, Size, Thumbnails, encode_png, small
from colmrl.serving.uploads import MAX_BYTES, MAX_PIXELS, Uploads
from colmrl.showing.answering import Answer, Answerer, Result
from colmrl.showing.explaining import colours, explain
from colmrl.view import View

MOST_RESULTS = 100
_TEXT = 2000  # characters of a document's text
_ENCODED = 64  # queries that are not encoded again, e.g. when only the view changes
_EXAMPLES, _EXAMPLE = 6, 60  # and characters of one
_STEPS = ("open", "encode", "search", "rerank")


class NotThere(Exception):
    """No such document or picture."""


@dataclass(frozen=True)
class _Encoded:
    """A query's embeddings, the milliseconds that they took, and whether that was just now."""

    embeddings: Embeddings
    ms: float
    now: bool = True


class Desk:
    """Opened whole at the start. All but `thumbnail` by one thread at a time."""

    def __init__(self, answerer: Answerer, indexes: Sequence[Path] = (), view: str | None = None):
        """`view`: where none is asked for; None: the first index's, or the store's first."""
        self.answerer, self.uploads, self.thumbnails = answerer, Uploads(), Thumbnails()
        documents = answerer.documents
        if not len(documents):
            raise InputError(f"{documents.folder}: holds no documents: encode some first")
        self.indexes: dict[View, Path] = {}
        for folder in indexes:
            manifest, _ = read_facts(folder)
            indexed = View.parse(manifest.view)
            check_index(folder, manifest, documents, indexed)
            if indexed in self.indexes:
                raise InputError(f"--index {folder}: another one is of {indexed} too: give one for each view")
            self.indexes[indexed] = folder
        first = next(iter(self.indexes), documents.views()[0])
        self.default = Plan.parse(view) if view else Plan.of(first)
        self._encoded: dict[tuple[str, tuple[str, ...]], _Encoded] = {}  # the last used last
        self._offers = offers(documents)

    def warm_up(self) -> None:
        """All that is slow but once: model, reranker, indexes, the first pass."""
        _ = self.answerer.judge
        for plan in [self.default, *map(Plan.of, self.indexes)]:
            self.answerer.ask(Query("query", "a"), plan, 1, self.indexes.get(plan.stages[0].view))

    def views(self) -> dict[str, Any]:
        documents, judge = self.answerer.documents, self.answerer.judge
        manifest = documents.manifest
        return {
            "store": documents.folder.parent.name,
            "stamp": documents.stamp,
            "documents": len(documents),
            "checkpoint": Path(manifest.checkpoint).name,
            "default": str(self.default),
            "trained": {"single": list(manifest.single_dims), "multi": list(manifest.multi_dims)},
            "views": [
                {"view": str(o.plan), "kind": o.kind, "bytes_per_document": round(o.bytes_per_document, 1)}
                for o in self._offers
            ],
            "indexes": [self._index(view, folder) for view, folder in self.indexes.items()],
            "reranker": judge.reranker.name if judge else None,
            "sees_pictures": self.answerer.model.inputs.sees_pictures,
            "explains": bool(manifest.multi_dims),
            "examples": self._examples(),
            "limits": {"results": MOST_RESULTS, "upload_bytes": MAX_BYTES, "upload_pixels": MAX_PIXELS},
        }

    def search(
        self, text: str, picture: str | None, view: str | None, k: int, exact: bool, rerank: bool
    ) -> dict[str, Any]:
        """`picture`: the name that `uploads` gave it; `exact`: though there is an index."""
        plan, documents = Plan.parse(view) if view else self.default, self.answerer.documents
        price, index = bytes_of(documents, plan), None if exact else self.indexes.get(plan.stages[0].view)
        query = self._query(text, picture)
        encoded = self._encode(query)
        answered = self.answerer.ask(query, plan, k, index, encoded.embeddings, rerank)
        ms = {**answered.ms, "encode": encoded.ms}
        return {
            "query": query.text,
            "picture": picture,
            "view": str(plan),
            "how": answered.how,
            "index": read_facts(index)[0].type if index else None,
            "bytes_per_document": round(price, 1),
            "documents": len(documents),
            "encoded_now": encoded.now,
            "ms": {name: round(ms[name], 3) for name in _STEPS if name in ms},
            "results": [_stated(result) for result in answered.results],
        }

    def explain(self, row: int, text: str, picture: str | None, numbers: bool) -> dict[str, Any]:
        """Of the document at `row` of the store: which of its pictures, and what to lay over it for each token."""
        query = self._query(text, picture)
        result = Result(1, 0.0, self._checked(row), self.answerer.record(row))
        of_query = query, self._encode(query).embeddings, self.default, str(self.default)
        try:
            found = explain(Answer(*of_query, [result], self.answerer.model, self.answerer.documents), result)
        except InputError as error:
            raise InputError(str(error).removeprefix("--explain: ").removesuffix(": leave it out")) from None
        telling = set(found.telling())
        tokens = [
            {"name": name, "telling": i in telling, **_laid_over(found.heats[i], found.scale)}
            for i, name in enumerate(found.names)
        ]
        return {
            "row": row,
            "id": result.document.id,
            "picture": found.picture,
            "grid": list(found.mean.shape),
            "mean": _laid_over(found.mean, found.mean_scale),
            "tokens": tokens,
            "bar": _url(colours(np.linspace(0, 1, 256)[None], 0, 1)),
            **({"similarity": np.round(found.heats, 4).tolist()} if numbers else {}),
        }

    def thumbnail(self, row: int, number: int, size: Size) -> Encoded:
        known = self.thumbnails.known(row, number, size)
        if known:
            return known
        document = self.answerer.record(self._checked(row))
        if not 0 <= number < len(document.images):
            raise NotThere(f"document {document.id!r}: has {len(document.images)} pictures, counted from 0")
        return self.thumbnails.make(row, document, number, size)

    def uploaded(self, name: str) -> Encoded:
        """A picture that was sent, small."""
        return small(self.uploads.reference(name), "small")

    def plain(self, message: str) -> str:
        """A message that does not say where files lie."""
        documents = self.answerer.documents
        places = {str(documents.folder): "the store", documents.manifest.data: "the data"}
        for place, name in places.items():
            message = message.replace(place, name)
        return self.uploads.unnamed(message)

    def close(self) -> None:
        self.uploads.close()

    def _checked(self, row: int) -> int:
        if not 0 <= row < len(self.answerer.documents):
            raise NotThere(f"document {row}: the store has {len(self.answerer.documents)}, counted from 0")
        return row

    def _query(self, text: str, picture: str | None) -> Query:
        text = text.strip()
        if not text and not picture:
            raise InputError("nothing to look for: give a text, a picture, or both")
        return Query("query", text, (self.uploads.reference(picture),) if picture else ())

    def _encode(self, query: Query) -> _Encoded:
        key = query.text, query.images
        found = self._encoded.pop(key, None)
        if found is None:
            started = time.perf_counter()
            embeddings = self.answerer.encode(query)
            self._encoded[key] = found = _Encoded(embeddings, (time.perf_counter() - started) * 1e3)
            while len(self._encoded) > _ENCODED:
                del self._encoded[next(iter(self._encoded))]
            return found
        self._encoded[key] = replace(found, now=False)
        return self._encoded[key]

    def _index(self, view: View, folder: Path) -> dict[str, Any]:
        manifest, _ = read_facts(folder)
        return {"view": str(view), "type": manifest.type, "recall": manifest.recall, "bytes": manifest.bytes}

    def _examples(self) -> list[str]:
        """Queries of the data itself, to begin with; none where the data cannot be read as such."""
        queries = self.answerer.collection.queries
        drawn = np.random.default_rng(0).permutation(len(queries))[: 4 * _EXAMPLES].tolist()
        texts = [" ".join(queries[i].text.split()) for i in drawn]
        return list(dict.fromkeys(text for text in texts if 0 < len(text) <= _EXAMPLE))[:_EXAMPLES]


def _stated(result: Result) -> dict[str, Any]:
    document = result.document
    return {
        "rank": result.rank,
        "score": round(result.score, 6),
        "row": result.row,
        "id": document.id,
        "text": document.body[:_TEXT],
        "pictures": len(document.images),
    }


def _laid_over(heat: Float[np.ndarray, "rows columns"], scale: tuple[float, float]) -> dict[str, Any]:
    """A picture with a pixel a cell, to be laid over the page in grey."""
    low, high = (round(value, 4) for value in scale)
    return {"max": round(float(heat.max()), 4), "low": low, "high": high, "overlay": _url(colours(heat, *scale))}


def _url(cells: Float[np.ndarray, "rows columns 4"]) -> str:
    made = encode_png(Image.fromarray((255 * cells).round().astype(np.uint8)))
    return f"data:{made.media_type};base64,{base64.b64encode(made.content).decode()}"
