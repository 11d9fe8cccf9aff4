"""Triples: {"query", "pos", "negs": […]} a line, texts or picture paths under `root`; ids and scores where mined."""

from collections.abc import Container, Sequence
from pathlib import Path

from colmrl.data.jsonl import Row, read_rows, write_rows
from colmrl.data.media import is_image_path
from colmrl.data.records import Document, Example, Query, Triple


def read_triples(
    path: str | Path, query_ids: Container[str], document_ids: Container[str], strict: bool = True
) -> list[Triple]:
    """Triples that carry ids (`query_id`, `pos_id`, `neg_ids`), as mine.py writes them; each id must be known."""

    def known(row: Row, field: str, names: tuple[str, ...], ids: Container[str]) -> None:
        for name in names:
            if name not in ids:
                raise row.error(field, f"unknown id {name!r}", "train on the data that was mined (data.path)")

    def parse(row: Row) -> Triple:
        negatives, scores = row.texts("neg_ids"), row.numbers("neg_scores")
        if scores is not None and len(scores) != len(negatives):
            raise row.error("neg_scores", f"{len(scores)} for {len(negatives)} neg_ids", "give one score a negative")
        positive_score = row.numbers("pos_score")
        query_id, positive = row.text("query_id"), row.text("pos_id")
        known(row, "query_id", (query_id,), query_ids)
        known(row, "pos_id", (positive,), document_ids)
        known(row, "neg_ids", negatives, document_ids)
        return Triple(
            query_id=query_id,
            pos_id=positive,
            neg_ids=negatives,
            pos_score=positive_score[0] if positive_score else None,
            neg_scores=scores,
        )

    return list(read_rows(path, parse, strict))


def has_ids(path: str | Path) -> bool:
    """Whether the first good line carries ids, so that texts and pictures come from data.path."""
    rows = read_rows(path, lambda row: "query_id" in row.values and "pos_id" in row.values, strict=False)
    return next(rows, False)


def read_self_contained(path: str | Path, root: str | Path, strict: bool = True) -> list[Example]:
    """Examples from triples without ids: each text or path is its own id; pictures must exist under `root`."""
    root = Path(root)

    def document(row: Row, field: str, value: str) -> Document:
        if not is_image_path(value):
            return Document(id=value, text=value)
        image = row.picture(field, value, root, "paths are relative to --root (data.root), or absolute")
        return Document(id=image, images=(image,))

    def parse(row: Row) -> Example:
        text = row.text("query")
        return Example(
            query=Query(id=text, text=text),
            positive=document(row, "pos", row.text("pos")),
            negatives=tuple(document(row, "negs", value) for value in row.texts("negs")),
        )

    return list(read_rows(path, parse, strict))


def write_triples(
    path: str | Path, triples: Sequence[Triple], queries: Sequence[Query], documents: Sequence[Document], root: str
) -> int:
    """Write triples with ids, scores, and texts or picture paths relative to `root`, for any other tool to read."""
    query_of, document_of = {q.id: q for q in queries}, {d.id: d for d in documents}

    def shown(document_id: str) -> str:
        document = document_of[document_id]
        if not document.images:
            return document.body
        image = Path(document.images[0])
        base = Path(root).resolve()
        return str(image.relative_to(base)) if image.is_relative_to(base) else str(image)

    return write_rows(
        path,
        (
            {
                "query": query_of[t.query_id].text,
                "pos": shown(t.pos_id),
                "negs": [shown(negative) for negative in t.neg_ids],
                "query_id": t.query_id,
                "pos_id": t.pos_id,
                "neg_ids": list(t.neg_ids),
                "pos_score": t.pos_score,
                "neg_scores": list(t.neg_scores or ()),
            }
            for t in triples
        ),
    )
