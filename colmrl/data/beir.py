"""The native format, the BEIR layout (arXiv:2104.08663) with pictures: corpus.jsonl, queries.jsonl, qrels/*.tsv.

Two folders more, where the data has them: triples/<split>.jsonl (hard negatives that it came with, see `triples`) and
top_ranked/<split>.jsonl (documents to rerank for a query, under the names that MTEB gives them).
"""

import codecs
import logging
import re
from collections.abc import Container
from pathlib import Path

from colmrl.data.jsonl import Row, read_records, read_rows, skip
from colmrl.data.records import Collection, Document, Examples, Qrels, Query, Records, Splits
from colmrl.data.triples import read_triples
from colmrl.errors import InputError, located
from colmrl.files import bounded_lines

log = logging.getLogger(__name__)


def read_beir(folder: Path, strict: bool = True) -> Collection:
    """The folder's documents and queries, read when asked for, and its judgements, read when a split is asked for.

    Raises InputError for bad lines, repeated ids, missing pictures, no documents or queries, unknown ids in qrels.
    """
    itself: dict[str, str] = {}
    documents, queries = read_corpus(folder, strict), read_queries(folder, strict, itself)
    triples = sorted((folder / "triples").glob("*.jsonl"))

    def examples(split: str) -> Examples:
        path = folder / "triples" / f"{split}.jsonl"
        return Examples(queries, documents, read_triples(path, queries.position, documents.position, strict))

    return Collection(
        source=str(folder),
        documents=documents,
        queries=queries,
        qrels=Splits(
            [path.stem for path in sorted((folder / "qrels").glob("*.tsv"))],
            lambda split: read_qrels(folder, split, queries.position, documents.position, strict),
        ),
        examples=Splits([path.stem for path in triples], examples),
        top_ranked=Splits(
            [path.stem for path in sorted((folder / "top_ranked").glob("*.jsonl"))],
            lambda split: read_top_ranked(folder, split, queries.position, documents.position, strict),
        ),
        itself=itself,
    )


def read_corpus(folder: Path, strict: bool = True) -> Records[Document]:
    """All documents, in file order."""

    def parse(row: Row) -> Document:
        document = Document(
            id=row.text("_id"),
            text=row.text("text", ""),
            title=row.text("title", ""),
            images=_images(row, folder),
            meta=row.mapping("meta"),
        )
        if not document.body and not document.images:
            raise row.error("text, image", "both empty", "give the document text, a picture, or both")
        return document

    documents = read_records(folder / "corpus.jsonl", parse, strict)
    if not documents:
        raise InputError(f"{folder / 'corpus.jsonl'}: empty corpus: write one document a line")
    return documents


def read_queries(folder: Path, strict: bool = True, itself: dict[str, str] | None = None) -> Records[Query]:
    """All queries, in file order; those that are a document themselves (field `itself`, its id) are put in `itself`."""

    def parse(row: Row) -> Query:
        images = _images(row, folder)
        query = Query(id=row.text("_id"), text=row.text("text", ""), images=images, meta=row.mapping("meta"))
        if not query.text and not query.images:
            raise row.error("text, image", "both empty", "give the query text, a picture, or both")
        if itself is not None and (name := row.text("itself", "")):
            itself[query.id] = name
        return query

    path = folder / "queries.jsonl"
    queries = read_records(path, parse, strict) if path.is_file() else ()
    if not queries:
        remedy = 'write {"_id", "text"} a line, and qrels/train.tsv (docs/data.md)'
        raise InputError(f"{path}: no queries: {remedy}")
    return queries


def read_top_ranked(
    folder: Path, split: str, query_ids: Container[str], document_ids: Container[str], strict: bool = True
) -> dict[str, tuple[str, ...]]:
    """The documents to rerank for each query, best or first shown first: {"query-id", "corpus-ids"} a line."""

    def parse(row: Row) -> tuple[str, tuple[str, ...]]:
        query, names = row.text("query-id"), row.texts("corpus-ids")
        if query not in query_ids:
            raise row.error("query-id", f"unknown id {query!r}", "add it to queries.jsonl")
        for name in names:
            if name not in document_ids:
                raise row.error("corpus-ids", f"unknown id {name!r}", "add it to corpus.jsonl")
        return query, names

    return dict(read_rows(folder / "top_ranked" / f"{split}.jsonl", parse, strict))


def read_qrels(
    folder: Path, split: str, query_ids: Container[str], document_ids: Container[str], strict: bool = True
) -> Qrels:
    """Judgements of a split; an id that queries.jsonl or corpus.jsonl does not have is an error (or skipped)."""
    path = folder / "qrels" / f"{split}.tsv"
    qrels: dict[str, dict[str, int]] = {}
    skipped = 0
    with path.open("rb") as lines:
        for number, line in bounded_lines(lines, path):
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if (number == 1 and line.startswith(b"query-id")) or not line.strip():
                continue
            try:
                query_id, document_id, grade = _judgement(path, number, line, query_ids, document_ids)
                if qrels.get(query_id, {}).get(document_id, grade) != grade:
                    pair = f"{query_id!r} and {document_id!r}"
                    raise located(path, number, "score", f"an earlier line has another for {pair}", "keep one")
            except InputError as error:
                skipped += skip(error, skipped, strict)
                continue
            qrels.setdefault(query_id, {})[document_id] = grade
    if skipped:
        log.warning("%s: skipped %d bad lines", path, skipped)
    if not qrels:
        raise InputError(f"{path}: no judgements: write query-id<TAB>corpus-id<TAB>score lines")
    return qrels


def _images(row: Row, folder: Path) -> tuple[str, ...]:
    names, remedy = row.texts("image"), "paths are relative to the data folder, or absolute"
    return tuple([row.picture("image", name, folder, remedy) for name in names]) if names else ()


def _judgement(
    path: Path, number: int, line: bytes, query_ids: Container[str], document_ids: Container[str]
) -> tuple[str, str, int]:
    try:
        fields = line.decode().rstrip("\r\n").split("\t")
    except UnicodeDecodeError as error:
        raise located(path, number, "line", f"not UTF-8 ({error.reason})", "save the file as UTF-8") from None
    if len(fields) != 3:
        raise located(path, number, "line", f"{len(fields)} fields", "write query-id<TAB>corpus-id<TAB>score")
    query_id, document_id, grade = fields
    if query_id not in query_ids:
        raise located(path, number, "query-id", f"unknown id {query_id!r}", "add it to queries.jsonl")
    if document_id not in document_ids:
        raise located(path, number, "corpus-id", f"unknown id {document_id!r}", "add it to corpus.jsonl")
    if not re.fullmatch(r"\s*[+-]?\d{1,4}\s*", grade):
        raise located(path, number, "score", f"{grade!r} is not a small integer", "write a grade such as 1")
    return query_id, document_id, int(grade)
