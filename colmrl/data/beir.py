"""The native format, the BEIR layout (arXiv:2104.08663) with pictures: corpus.jsonl, queries.jsonl, qrels/*.tsv."""

import codecs
import functools
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from colmrl.data.jsonl import Row, read_rows, skip
from colmrl.data.records import Document, Example, Qrels, Query, Triple
from colmrl.errors import InputError, located

log = logging.getLogger(__name__)


def read_corpus(folder: str | Path, strict: bool = True) -> list[Document]:
    """All documents, in file order. Raises InputError for bad lines, repeated ids, missing pictures, no documents."""
    folder = _data_folder(folder)

    def parse(row: Row) -> Document:
        document = Document(
            id=_new_id(row, seen),
            text=row.text("text", ""),
            title=row.text("title", ""),
            images=_images(row, folder),
            meta=row.mapping("meta"),
        )
        if not document.body and not document.images:
            raise row.error("text, image", "both empty", "give the document text, a picture, or both")
        seen.add(document.id)
        return document

    seen: set[str] = set()
    documents = list(read_rows(folder / "corpus.jsonl", parse, strict))
    if not documents:
        raise InputError(f"{folder / 'corpus.jsonl'}: empty corpus: write one document a line")
    return documents


def read_queries(folder: str | Path, strict: bool = True) -> list[Query]:
    """All queries, in file order."""
    folder = _data_folder(folder)

    def parse(row: Row) -> Query:
        query = Query(id=_new_id(row, seen), text=row.text("text", ""), images=_images(row, folder))
        if not query.text and not query.images:
            raise row.error("text, image", "both empty", "give the query text, a picture, or both")
        seen.add(query.id)
        return query

    seen: set[str] = set()
    queries = list(read_rows(folder / "queries.jsonl", parse, strict))
    if not queries:
        raise InputError(f"{folder / 'queries.jsonl'}: no queries: write one query a line")
    return queries


def read_qrels(
    folder: str | Path, split: str, query_ids: set[str], document_ids: set[str], strict: bool = True
) -> Qrels:
    """Judgements of a split; an id that queries.jsonl or corpus.jsonl does not have is an error (or skipped)."""
    path = _data_folder(folder) / "qrels" / f"{split}.tsv"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.tsv"))) or "none"
        raise InputError(f"{path}: no such split: choose from {there}")
    qrels: dict[str, dict[str, int]] = {}
    skipped = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
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


def pair_examples(queries: Sequence[Query], documents: Sequence[Document], qrels: Qrels) -> list[Example]:
    """One example for each relevant (query, document) pair of the qrels, no explicit negatives."""
    query_of, document_of = {q.id: q for q in queries}, {d.id: d for d in documents}
    return [
        Example(query_of[query_id], document_of[document_id])
        for query_id, judged in qrels.items()
        for document_id, grade in judged.items()
        if grade > 0
    ]


def triple_examples(
    queries: Sequence[Query], documents: Sequence[Document], triples: Sequence[Triple]
) -> list[Example]:
    """Examples from mined triples, looked up by id."""
    query_of, document_of = {q.id: q for q in queries}, {d.id: d for d in documents}
    return [
        Example(query_of[t.query_id], document_of[t.pos_id], tuple(document_of[n] for n in t.neg_ids)) for t in triples
    ]


def _data_folder(folder: str | Path) -> Path:
    if not str(folder):
        raise InputError("data.path: not given: name a folder with corpus.jsonl, queries.jsonl and qrels/")
    folder = Path(folder)
    if folder.is_dir():
        return folder
    if len(folder.parts) == 2 and not folder.is_absolute() and ".." not in folder.parts and not folder.parent.exists():
        return _from_hub(folder.as_posix())
    raise InputError(f"{folder}: no such data folder: check data.path (or write one: colmrl prepare sample)")


@functools.lru_cache(maxsize=16)
def _from_hub(name: str) -> Path:
    """A hub data set that keeps the BEIR layout in files (as mteb/scifact does), downloaded once and cached."""
    from huggingface_hub import snapshot_download

    wanted = ["corpus.jsonl", "queries.jsonl", "qrels/*.tsv", "images/*"]
    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=wanted))
    except (OSError, ValueError) as error:  # what the hub's client raises, whatever went wrong
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"data.path: {name!r}: no such folder, and not to be had from the hub ({reason})") from None


def _new_id(row: Row, seen: set[str]) -> str:
    name = row.text("_id")
    if not name or name in seen:
        raise row.error("_id", f"{name!r} {'stands on an earlier line' if name else 'is empty'}", "make ids unique")
    return name


def _images(row: Row, folder: Path) -> tuple[str, ...]:
    remedy = "paths are relative to the data folder, or absolute"
    return tuple(row.picture("image", name, folder, remedy) for name in row.texts("image"))


def _judgement(
    path: Path, number: int, line: bytes, query_ids: set[str], document_ids: set[str]
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
