"""A data set in three tables, as MTEB and ViDoRe (v2, v3) keep it: corpus, queries and qrels, each a folder of parquet,
or a configuration of a data set of the hub. A table's splits are its files' names.

Columns by the names that both use. Corpus: `corpus-id`, `corpus_id`, `id` or `_id`; `image`; `text` or `markdown`;
`title`. Queries: `query-id`, `query_id`, `id` or `_id`; `query` or `text`; `image`; `language` (kept as meta). Qrels:
`query-id`, `corpus-id`, `score`, or with underscores.
"""

import logging
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from colmrl.data.jsonl import IndexedLines, Row, skip
from colmrl.data.records import Collection, Document, Qrels, Query, Records
from colmrl.data.tables import Table, TableRow, is_picture, open_tables
from colmrl.errors import InputError

log = logging.getLogger(__name__)
PARTS = ("corpus", "queries", "qrels")
_CORPUS_ID, _QUERY_ID = ("corpus-id", "corpus_id"), ("query-id", "query_id")
R = TypeVar("R", Document, Query)


def is_corpus_tables(folder: Path) -> bool:
    return all(any((folder / part).glob("*.parquet")) for part in PARTS)


def read_corpus_tables(source: str, strict: bool = True) -> Collection:
    """All splits of corpus and queries together, and judgements by their own splits.

    Raises InputError for missing columns, an id of two rows, judgements of unknown ids, no records.
    """
    parts = {part: str(Path(source) / part) if Path(source).is_dir() else f"{source}:{part}" for part in PARTS}
    tables = {part: open_tables(name, strict) for part, name in parts.items()}
    documents = _records(parts["corpus"], tables["corpus"].values(), (*_CORPUS_ID, "id", "_id"), _document)
    queries = _records(parts["queries"], tables["queries"].values(), (*_QUERY_ID, "id", "_id"), _query)
    qrels = {split: _qrels(table, queries, documents, strict) for split, table in tables["qrels"].items()}
    return Collection(source=source, documents=documents, queries=queries, qrels=qrels)


def _records(source: str, tables: Iterable[Table], names: Sequence[str], parse: Callable[[str, Row], R]) -> Records[R]:
    """By id. Of a record are kept its id and where it stands; ids alone are read here."""
    ids: dict[str, None] = {}
    opened, table_of, row_of = list(tables), array("i"), array("q")
    for number, table in enumerate(opened):
        if len(table):
            table.row(0).first(names)
        for place, row in enumerate(_only(table, names)):
            column = row.first(names)
            name = row.text(column)
            if name in ids:
                raise row.error(column, f"{name!r} is the id of an earlier row", "make ids unique")
            ids[name] = None
            table_of.append(number)
            row_of.append(place)
    if not ids:
        raise InputError(f"{source}: no rows: is this the right data set (data.path)?")
    listed = list(ids)
    return Records(listed, lambda i: parse(listed[i], opened[table_of[i]].row(row_of[i])))


def _document(name: str, row: Row) -> Document:
    text, images = _shown(row, ("text", "markdown"))
    return Document(name, text, row.text("title", ""), images)


def _query(name: str, row: Row) -> Query:
    text, images = _shown(row, ("query", "text"))
    language = row.text("language", "")
    return Query(name, text, images, {"language": language} if language else {})


def _shown(row: Row, texts: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Text and picture of a row, of which it has one at least."""
    text = next((row.text(column) for column in texts if row.values.get(column) is not None), "")
    images: tuple[str, ...] = ()
    if is_picture(row.values.get("image")):
        assert isinstance(row, TableRow)
        images = (row.reference("image"),)
    if not text and not images:
        raise row.error(" | ".join((*texts, "image")), "all empty", "give the row text, a picture, or both")
    return text, images


def _qrels(table: Table, queries: Records[Query], documents: Records[Document], strict: bool) -> Qrels:
    found: dict[str, dict[str, int]] = {}
    skipped = 0
    for row in _only(table, (*_QUERY_ID, *_CORPUS_ID, "score")):
        try:
            query, document = (row.text(row.first(names)) for names in (_QUERY_ID, _CORPUS_ID))
            for name, records, kind in ((query, queries, "queries"), (document, documents, "corpus")):
                if name not in records.position:
                    raise row.error(f"{kind} id", f"unknown id {name!r}", f"add it to the table {kind}")
            found.setdefault(query, {})[document] = _grade(row, row.values.get("score"))
        except InputError as error:
            skipped += skip(error, skipped, strict)
    if skipped:
        log.warning("skipped %d bad judgements", skipped)
    return found


def _grade(row: Row, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer():
        raise row.error("score", f"{value!r} is not a whole number", "write a grade such as 1")
    return int(value)


def _only(table: Table, columns: Sequence[str]) -> Table:
    """Without the other columns, pictures above all."""
    return table if isinstance(table, IndexedLines) else table.select(columns)
