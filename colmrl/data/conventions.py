"""The column conventions of the field: a table's row → the query, the documents and the judgement that it means.

query-image            query, image                                     (vidore/colpali_train_set and its like)
sentence-transformers  anchor, positive, negative(s), negative_1 …;     sentence1, sentence2, label or score
colpali                query, pos_target, neg_target                    (ColPaliEngineDataset)
tevatron               query_id, query, positive_passages, negative_passages; or query_text, query_image,
                       positive_document_ids, negative_document_ids and a table `corpus` of docid, text, image
flagembedding          query, pos[], neg[], pos_scores[], neg_scores[]
ms-swift               messages, positive_messages, negative_messages and their images; or query, response,
                       rejected_response
triples                query, pos, negs[], pos_score, neg_scores[]

A document's cell is a text, the path of a picture, a picture, a list of pictures, or an object of title, text and
image. A label or score above 0.5 makes a pair relevant; below, its document is a negative of the same anchor.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from colmrl.data.jsonl import Row
from colmrl.data.media import is_image_path
from colmrl.data.records import Document, Query
from colmrl.data.tables import TableRow, check_reference, is_picture, is_reference
from colmrl.errors import InputError

Convention = Literal[
    "query-image", "sentence-transformers", "colpali", "tevatron", "flagembedding", "ms-swift", "triples"
]
_ANCHORS = ("anchor", "query", "question", "sentence1")
_POSITIVES = ("positive", "answer", "sentence2")
_NEGATIVE = re.compile(r"(hard_)?negatives?(_\d+)?")
_GRADES = ("label", "score")
_IMAGES = ("image", "images")
_USES: dict[str, tuple[str, ...]] = {
    "query-image": ("query", *_IMAGES),
    "sentence-transformers": (*_ANCHORS, *_POSITIVES, *_GRADES),
    "colpali": ("query", "pos_target", "neg_target"),
    "tevatron": (
        *("query_id", "query", "query_text", "query_image", "positive_passages", "negative_passages"),
        *("positive_document_ids", "negative_document_ids"),
    ),
    "flagembedding": ("query", "pos", "neg", "pos_scores", "neg_scores"),
    "ms-swift": (
        *("messages", "images", "query", "response", "rejected_response", "label"),
        *("positive_messages", "positive_images", "negative_messages", "negative_images"),
    ),
    "triples": ("query", "pos", "negs", "pos_score", "neg_scores"),
}
_IMAGE_TAG = "<image>"


@dataclass(frozen=True)
class Meant:
    """What a row means. Ids are empty where the row has none. `query` None: a page that nobody asked for.

    `named`: the ids of positives and negatives that stand in a table of their own. `scores`: a teacher's, of positives
    and of negatives.
    """

    query: Query | None
    positives: tuple[Document, ...] = ()
    negatives: tuple[Document, ...] = ()
    named: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    scores: tuple[tuple[float, ...] | None, tuple[float, ...] | None] = (None, None)


def recognise(columns: Collection[str]) -> Convention | None:
    """The convention that has these columns, None where none has."""
    has = set(columns).issuperset
    anchored = any(map(has, zip(_ANCHORS))) and any(map(has, zip(_POSITIVES)))
    candidates: tuple[tuple[Convention, bool], ...] = (
        ("ms-swift", has(["messages", "positive_messages"]) or has(["query", "response"])),
        ("query-image", "query" in columns and any(image in columns for image in _IMAGES)),
        ("tevatron", has(["positive_passages"]) or has(["positive_document_ids"])),
        ("colpali", has(["query", "pos_target"])),
        ("triples", has(["query", "pos", "negs"])),
        ("flagembedding", has(["query", "pos"])),
        ("sentence-transformers", anchored),
    )
    return next((convention for convention, found in candidates if found), None)


def uses(convention: Convention, column: str) -> bool:
    """Whether a column means something in the convention; others are said, and left."""
    return column in _USES[convention] or (
        convention == "sentence-transformers" and _NEGATIVE.fullmatch(column) is not None
    )


def meaning(convention: Convention, root: Path) -> Callable[[Row], Meant]:
    """How a row of this convention is read; relative picture paths start at `root`."""
    parse: Callable[[_Cells], Meant] = {
        "query-image": _query_image,
        "sentence-transformers": _sentence_transformers,
        "colpali": _colpali,
        "tevatron": _tevatron,
        "flagembedding": lambda cells: _scored(cells, "neg", "pos_scores"),
        "ms-swift": _ms_swift,
        "triples": lambda cells: _scored(cells, "negs", "pos_score"),
    }[convention]
    return lambda row: parse(_Cells(row, root))


class _Cells:
    """A row's cells as documents and queries."""

    def __init__(self, row: Row, root: Path):
        self.row, self.root = row, root

    def query(self, column: str, name: str = "") -> Query:
        text, images, _ = self.shown(column, self.row.values.get(column), paths=False)
        return Query(name, text, images)

    def document(self, column: str) -> Document:
        return self._document(column, self.row.values.get(column))

    def documents(self, column: str) -> tuple[Document, ...]:
        """A cell that is a document, or a list of them, or empty."""
        value = self.row.values.get(column)
        if value is None:
            return ()
        if not isinstance(value, list):
            return (self._document(column, value),)
        return tuple(self._document(f"{column}/{i}", item) for i, item in enumerate(value))

    def _document(self, at: str, value: Any) -> Document:
        text, images, title = self.shown(at, value, paths=True)
        name = value.get("docid") if isinstance(value, dict) else None
        if name is not None and not isinstance(name, str | int):
            raise self.row.error(at, f"docid {name!r} is a {type(name).__name__}", "write it as a string")
        return Document("" if name is None else str(name), text, title, images)

    def shown(self, at: str, value: Any, paths: bool) -> tuple[str, tuple[str, ...], str]:
        """Text, pictures and title of a cell."""
        if isinstance(value, str) and paths and is_image_path(value):
            return "", (self.picture(at, value),), ""
        if isinstance(value, str) and value.strip():
            return self.row.encodable(at, value), (), ""
        if is_picture(value):
            return "", (self.embedded(at, value),), ""
        if isinstance(value, list) and value and all(map(is_picture, value)):
            return "", tuple(self.embedded(f"{at}/{i}", item) for i, item in enumerate(value)), ""
        if isinstance(value, dict) and {"text", "image", "title"} & set(value):
            text, title = (self.text(f"{at}/{name}", value.get(name)) for name in ("text", "title"))
            image = value.get("image")
            images: tuple[str, ...] = ()
            if isinstance(image, str) and image:
                images = (self.picture(f"{at}/image", image),)
            elif image is not None:
                images = self.shown(f"{at}/image", image, paths)[1]
            if text or title or images:
                return text, images, title
        if isinstance(value, int) and not isinstance(value, bool) and isinstance(self.row, TableRow):
            return str(value), (), ""  # a column of a CSV file that holds numbers only
        if isinstance(value, bytes):
            raise self.row.error(at, "bare bytes", "store pictures as datasets.Image does: bytes and path")
        empty = not value or (isinstance(value, str) and not value.strip())
        said = "missing or empty" if empty else f"{str(value)[:60]!r} is a {type(value).__name__}"
        raise self.row.error(at, said, "give text, a picture, or an object with text or image")

    def parts(self, text: str, image: str) -> tuple[str, tuple[str, ...]]:
        """Text and pictures that stand in columns of their own; one of them may be empty."""
        body, picture = self.row.text(text, ""), self.row.values.get(image)
        images = () if picture is None else self.shown(image, picture, paths=True)[1]
        if not body and not images:
            raise self.row.error(f"{text}, {image}", "both empty", "give text, a picture, or both")
        return body, images

    def text(self, at: str, value: Any) -> str:
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.row.error(at, f"{str(value)[:60]!r} is a {type(value).__name__}", "write it as a string")
        return self.row.encodable(at, value)

    def picture(self, at: str, name: str) -> str:
        """A picture named by a path under the root, an absolute path, or a row of a data set."""
        if is_reference(name) and not (self.root / name).is_file():
            try:
                return check_reference(name, self.root)
            except InputError as error:
                raise self.row.error(at, str(error), "check --root (data.root)") from None
        return self.row.picture(at, name, self.root, "paths are relative to --root (data.root), or absolute")

    def embedded(self, at: str, value: dict[str, Any]) -> str:
        if value["bytes"] is None:
            return self.picture(at, value["path"])
        if not isinstance(self.row, TableRow):
            raise self.row.error(at, "a picture's bytes in a JSON file", "name its file, or use parquet")
        return self.row.reference(at)


def _query_image(cells: _Cells) -> Meant:
    page = cells.document(cells.row.first(_IMAGES))
    return Meant(None if cells.row.values.get("query") is None else cells.query("query"), (page,))


def _sentence_transformers(cells: _Cells) -> Meant:
    row = cells.row
    query, answers = cells.query(cells.row.first(_ANCHORS)), cells.documents(cells.row.first(_POSITIVES))
    names = [name for name in row.values if _NEGATIVE.fullmatch(name) and row.values[name] is not None]
    return _graded(cells, query, answers, tuple(document for name in names for document in cells.documents(name)))


def _colpali(cells: _Cells) -> Meant:
    return _asked(cells, cells.query("query"), cells.documents("pos_target"), cells.documents("neg_target"))


def _tevatron(cells: _Cells) -> Meant:
    row = cells.row
    name = row.text("query_id")
    if row.values.get("positive_document_ids") is None:
        negatives = cells.documents("negative_passages")
        return _asked(cells, cells.query("query", name), cells.documents("positive_passages"), negatives)
    text, images = cells.parts("query_text", "query_image")
    named = row.texts("positive_document_ids"), row.texts("negative_document_ids")
    if not named[0]:
        raise row.error("positive_document_ids", "empty", "give each query a document that answers it")
    return Meant(Query(name, text, images), named=named)


def tevatron_document(row: Row, root: Path) -> Document:
    """A row of the table `corpus` that documents are named in."""
    text, images = _Cells(row, root).parts("text", "image")
    return Document(row.text("docid"), text, row.text("title", ""), images)


def _scored(cells: _Cells, negatives: str, of_positives: str) -> Meant:
    """Positives and negatives, each side perhaps with a teacher's scores."""
    meant = _asked(cells, cells.query("query"), cells.documents("pos"), cells.documents(negatives))
    first = cells.row.scores(of_positives, "pos", len(meant.positives))
    return replace(meant, scores=(first, cells.row.scores("neg_scores", negatives, len(meant.negatives))))


def _ms_swift(cells: _Cells) -> Meant:
    row = cells.row
    if row.values.get("messages") is None:
        answers, rejected = cells.documents("response"), cells.documents("rejected_response")
        return _graded(cells, cells.query("query"), answers, rejected)
    text, images = _conversation(cells, "messages", row.values["messages"], row.values.get("images"))
    sides = []
    for side in ("positive", "negative"):
        column, pictures = f"{side}_messages", row.values.get(f"{side}_images")
        talks = row.values.get(column) or []
        if not isinstance(talks, list) or not isinstance(pictures, list | None):
            raise row.error(column, f"a {type(talks).__name__}", "write a list of lists of messages")
        if pictures is not None and len(pictures) != len(talks):
            raise row.error(f"{side}_images", f"{len(pictures)} for {len(talks)} {column}", "give one list a document")
        shown = [
            _conversation(cells, f"{column}/{i}", t, pictures[i] if pictures else None) for i, t in enumerate(talks)
        ]
        sides.append(tuple(Document("", body, "", seen) for body, seen in shown))
    return _graded(cells, Query("", text, images), *sides)


def _conversation(cells: _Cells, at: str, messages: Any, pictures: Any) -> tuple[str, tuple[str, ...]]:
    """The text of all messages, without its picture tags, and the pictures, one for each tag."""
    row = cells.row
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise row.error(at, f"{str(messages)[:60]!r} is no list of messages", 'write [{"role": …, "content": …}]')
    texts = [cells.text(f"{at}/content", message.get("content")) for message in messages]
    pictures = [] if pictures is None else pictures if isinstance(pictures, list) else [pictures]
    tags = sum(text.count(_IMAGE_TAG) for text in texts)
    if tags != len(pictures):
        raise row.error(at, f"{tags} {_IMAGE_TAG} for {len(pictures)} pictures", "give one picture a tag")
    images = tuple(
        cells.picture(at, one) if isinstance(one, str) else cells.shown(at, one, paths=True)[1][0] for one in pictures
    )
    text = "\n".join(text.replace(_IMAGE_TAG, "").strip() for text in texts).strip()
    if not text and not images:
        raise row.error(at, "no text and no picture", "give one of them")
    return text, images


def _graded(cells: _Cells, query: Query, answers: tuple[Document, ...], negatives: tuple[Document, ...]) -> Meant:
    """A label or score of the row says whether its answers are relevant; without one they are."""
    row = cells.row
    graded = next((name for name in _GRADES if row.values.get(name) is not None), None)
    value = (row.numbers(graded) or (0.0,))[0] if graded else 1.0
    if not 0 <= value <= 1:
        raise row.error(graded or "", f"{value:g} is not within 0 and 1", "scale it: above 0.5 is relevant")
    if value <= 0.5 and answers:
        return Meant(query, (), (*answers, *negatives))
    return _asked(cells, query, answers, negatives)


def _asked(cells: _Cells, query: Query, positives: tuple[Document, ...], negatives: tuple[Document, ...]) -> Meant:
    if not positives:
        raise cells.row.error("line", "no positive", "give each query a document that answers it")
    return Meant(query, positives, negatives)
