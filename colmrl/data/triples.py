"""Triples by id, as mine.py writes them: {"query", "pos", "negs": […]} with query_id, pos_id, neg_ids and scores.

Triples without ids are a convention of tables, see `conventions`.
"""

from collections.abc import Container, Iterable
from pathlib import Path

from colmrl.data.jsonl import Row, read_rows, write_rows
from colmrl.data.records import Document, Query, Records, Triple


def read_triples(
    path: str | Path, query_ids: Container[str], document_ids: Container[str], strict: bool = True
) -> list[Triple]:
    """Triples that carry ids (`query_id`, `pos_id`, `neg_ids`), as mine.py writes them; each id must be known."""

    def known(row: Row, field: str, names: tuple[str, ...], ids: Container[str]) -> None:
        for name in names:
            if name not in ids:
                raise row.error(field, f"unknown id {name!r}", "train on the data that was mined (data.path)")

    def parse(row: Row) -> Triple:
        negatives = row.texts("neg_ids")
        scores = row.scores("neg_scores", "neg_ids", len(negatives))
        positive_score = row.scores("pos_score", "pos_id", 1)
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


def write_triples(
    path: str | Path, triples: Iterable[Triple], queries: Records[Query], documents: Records[Document], root: str
) -> int:
    """Write triples with ids, scores, and texts or picture paths relative to `root`, for any other tool to read."""

    def shown(document_id: str) -> str:
        document = documents.named(document_id)
        if not document.images:
            return document.body
        image = Path(document.images[0])
        base = Path(root).absolute()
        return str(image.relative_to(base)) if image.is_relative_to(base) else str(image)

    return write_rows(
        path,
        (
            {
                "query": queries.named(t.query_id).text,
                "pos": shown(t.pos_id),
                "negs": [shown(negative) for negative in t.neg_ids],
                "query_id": t.query_id,
                "pos_id": t.pos_id,
                "neg_ids": list(t.neg_ids),
                "pos_score": t.pos_score,
                "neg_scores": None if t.neg_scores is None else list(t.neg_scores),
            }
            for t in triples
        ),
    )
