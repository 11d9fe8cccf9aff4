"""Collection → the column conventions of the field (see `conventions`), so that any tool can read it.

One row an example (query, positive, its negatives). Pictures lie in the table (parquet) where the convention is one of
tables, and are named by their files where it is one of JSON lines; a picture that is a row of another table or a frame
of a video is written out under `images/` then.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from colmrl.data.conventions import Convention
from colmrl.data.jsonl import write_rows
from colmrl.data.media import is_image_path
from colmrl.data.records import Collection, Document, Example, Query
from colmrl.data.writing import Pictures, encoded, write_parquet
from colmrl.errors import InputError

_IN_TABLES = ("query-image", "sentence-transformers", "colpali", "tevatron")


def write_convention(collection: Collection, convention: Convention, out: Path) -> dict[str, int]:
    """`out`/SPLIT.parquet or .jsonl for each split, in the convention's columns; returns what was written.

    Raises InputError for records that the convention cannot hold, naming the record and what can.
    """
    shape = _Shape.of(collection)
    counts = Counter[str]()
    pictures = Pictures(out / "images")
    unasked = _left_out(collection, convention, shape, counts)
    for split in collection.qrels:
        examples = collection.train_on(split)
        most = examples.most_negatives
        if convention == "query-image" and most:
            counts[f"negatives in {split} that query-image cannot hold"] = sum(
                len(t.neg_ids) for t in examples.triples()
            )
        writer = _Writer(convention, pictures, shape, most)
        rows: Iterable[dict[str, Any]] = map(writer.row, examples)
        if convention == "query-image" and unasked:  # rows without a query, in the first split
            rows = itertools.chain(rows, map(writer.page, (collection.documents[position] for position in unasked)))
            counts["pages without a query"], unasked = len(unasked), []
        if writer.in_table:
            counts[f"rows in {split}"] = write_parquet(out / f"{split}.parquet", rows, writer.features())
        else:
            counts[f"rows in {split}"] = write_rows(out / f"{split}.jsonl", rows)
    if convention == "tevatron" and shape.pictures:
        writer = _Writer(convention, pictures, shape, 0)
        rows = map(writer.corpus_row, collection.documents)
        counts["documents"] = write_parquet(out / "corpus.parquet", rows, writer.corpus_features())
    return dict(counts)


def _left_out(collection: Collection, convention: Convention, shape: "_Shape", counts: Counter[str]) -> list[int]:
    """Count what rows of examples cannot hold; returns the documents that no example shows."""
    shown, asked, graded = bytearray(len(collection.documents)), set[str](), 0
    for split in collection.qrels:
        for triple in collection.train_on(split).triples():
            asked.add(triple.query_id)
            for name in (triple.pos_id, *(() if convention == "query-image" else triple.neg_ids)):
                shown[collection.documents.position[name]] = 1
        judged = collection.judged(split).values()
        graded += sum(grade != 1 for grades in judged for grade in grades.values())
    unasked = [position for position, seen in enumerate(shown) if not seen]
    keeps_all = convention == "query-image" or (convention == "tevatron" and shape.pictures)
    lost = {
        "documents in no example": 0 if keeps_all else len(unasked),
        "queries without a relevant document": len(collection.queries) - len(asked),
        "grades other than 1": graded,
        "lists to rerank": sum(len(collection.top_ranked[split]) for split in collection.top_ranked),
    }
    counts.update({f"{name} LEFT OUT": value for name, value in lost.items() if value})
    return unasked


# What each record of a side shows; both: also where some show the one, some the other.
Kind = Literal["text", "image", "both"]


@dataclass(frozen=True)
class _Shape:
    queries: Kind
    documents: Kind

    @classmethod
    def of(cls, collection: Collection) -> "_Shape":
        def kind(records: Iterable[Query | Document]) -> Kind:
            shown = {(bool(_body(one)), bool(one.images)) for one in records}
            return "text" if shown <= {(True, False)} else "image" if shown == {(False, True)} else "both"

        return cls(kind(collection.queries), kind(collection.documents))

    @property
    def pictures(self) -> bool:
        return {self.queries, self.documents} != {"text"}


class _Writer:
    def __init__(self, convention: Convention, pictures: Pictures, shape: _Shape, negatives: int):
        self.convention, self.pictures, self.shape, self.most = convention, pictures, shape, negatives
        self.in_table = shape.pictures and convention in _IN_TABLES

    def row(self, example: Example) -> dict[str, Any]:
        query, positive, negatives = example.query, example.positive, example.negatives
        match self.convention:
            case "query-image":
                return {"query": self._text(query), "image": self._picture(positive)}
            case "sentence-transformers":
                shown = [self._cell(d) for d in negatives] + [None] * (self.most - len(negatives))
                both = {"anchor": self._cell(query), "positive": self._cell(positive)}
                return both | dict(zip(self._negative_names(), shown, strict=True))
            case "colpali":
                if self.shape.documents == "both":
                    raise self._cannot(positive, "text beside pictures")
                cells = [self._cell(d) for d in negatives]
                return {"query": self._text(query), "pos_target": self._cell(positive), "neg_target": cells}
            case "tevatron" if self.shape.pictures:
                names = {"positive_document_ids": [positive.id], "negative_document_ids": [d.id for d in negatives]}
                asked = {"query_id": query.id, "query_text": query.text, "query_image": self._one(query)}
                return asked | names
            case "tevatron":
                sides = {"positive_passages": [positive], "negative_passages": negatives}
                shown = {
                    side: [{"docid": d.id, "title": d.title, "text": d.text} for d in some]
                    for side, some in sides.items()
                }
                return {"query_id": query.id, "query": self._text(query)} | shown
            case "flagembedding":
                asked = {"query": self._text(query), "pos": [self._named(positive)]}
                asked["neg"] = [*map(self._named, negatives)]
                return asked | _scores(example, "pos_scores", "neg_scores")
            case "triples":
                asked = {"query": self._text(query), "pos": self._named(positive)}
                return asked | {"negs": [*map(self._named, negatives)]} | _scores(example, "pos_score", "neg_scores")
            case _:
                return self._messages(query, positive, negatives)

    def page(self, document: Document) -> dict[str, Any]:
        """A page that nobody asked for."""
        return {"query": None, "image": self._picture(document)}

    def corpus_row(self, document: Document) -> dict[str, Any]:
        return {"docid": document.id, "title": document.title, "text": document.text, "image": self._one(document)}

    def _messages(self, query: Query, positive: Document, negatives: Iterable[Document]) -> dict[str, Any]:
        def talk(role: str, one: Query | Document) -> list[dict[str, str]]:
            if "<image>" in _body(one):
                raise self._cannot(one, "a text with <image> in it")
            return [{"role": role, "content": "<image>" * len(one.images) + _body(one)}]

        row: dict[str, Any] = {"messages": talk("user", query)}
        if query.images:
            row["images"] = [self.pictures.path(image) for image in query.images]
        for side, some in (("positive", (positive,)), ("negative", tuple(negatives))):
            row[f"{side}_messages"] = [talk("assistant", one) for one in some]
            if any(one.images for one in some):
                row[f"{side}_images"] = [[self.pictures.path(image) for image in one.images] for one in some]
        return row

    def _text(self, query: Query) -> str:
        if query.images:
            raise self._cannot(query, "a query with pictures")
        return query.text

    def _one(self, one: Query | Document) -> dict[str, Any] | None:
        """A record's only picture as a table holds it."""
        if len(one.images) > 1:
            raise self._cannot(one, f"{len(one.images)} pictures in one record")
        return {"bytes": encoded(one.images[0]), "path": None} if one.images else None

    def _picture(self, document: Document) -> dict[str, Any]:
        picture = self._one(document)
        if picture is None or document.body:
            raise self._cannot(document, "a document with text" if document.body else "a document without a picture")
        return picture

    def _cell(self, one: Query | Document) -> Any:
        """Text alone, a picture alone, or an object of both."""
        kind = self.shape.queries if isinstance(one, Query) else self.shape.documents
        if kind == "both":
            return {"text": _body(one), "image": self._one(one)}
        return self._one(one) if kind == "image" else self._plain(one)

    def _plain(self, one: Query | Document) -> str:
        """A text that will not be taken for the path of a picture."""
        if isinstance(one, Document) and is_image_path(one.body):
            raise self._cannot(one, f"the text {one.body!r}, which reads as the path of a picture")
        return _body(one)

    def features(self) -> dict[str, Any]:
        """The columns' types, as `datasets` names them."""
        from datasets import Image, List, Value

        cells = {"text": Value("string"), "image": Image(), "both": {"text": Value("string"), "image": Image()}}
        query, document = cells[self.shape.queries], cells[self.shape.documents]
        match self.convention:
            case "query-image":
                return {"query": Value("string"), "image": Image()}
            case "sentence-transformers":
                return {"anchor": query, "positive": document} | dict.fromkeys(self._negative_names(), document)
            case "colpali":
                return {"query": Value("string"), "pos_target": document, "neg_target": List(document)}
            case _:
                names = dict.fromkeys(("positive_document_ids", "negative_document_ids"), List(Value("string")))
                return {"query_id": Value("string"), "query_text": Value("string"), "query_image": Image()} | names

    def corpus_features(self) -> dict[str, Any]:
        from datasets import Image, Value

        return dict.fromkeys(("docid", "title", "text"), Value("string")) | {"image": Image()}

    def _negative_names(self) -> list[str]:
        return ["negative"] if self.most == 1 else [f"negative_{n}" for n in range(1, self.most + 1)]

    def _named(self, document: Document) -> str:
        """Text, or the path of the only picture."""
        images = document.images
        if images and (document.body or len(images) > 1):
            raise self._cannot(document, "text beside a picture, or several pictures")
        return self.pictures.path(images[0]) if images else self._plain(document)

    def _cannot(self, one: Query | Document, what: str) -> InputError:
        kind = "query" if isinstance(one, Query) else "document"
        return InputError(
            f"{kind} {one.id!r}: {self.convention} cannot hold {what}: give --fields image or text, or --to beir, "
            "which holds everything"
        )


def _scores(example: Example, of_positive: str, of_negatives: str) -> dict[str, Any]:
    """A teacher's, where it gave any."""
    first, *others = example.scores or (math.nan,)
    kept = {of_positive: [first], of_negatives: others}
    return {name: scores for name, scores in kept.items() if not all(map(math.isnan, scores))}


def _body(one: Query | Document) -> str:
    return one.body if isinstance(one, Document) else one.text
