"""Tables in a known convention → a collection: the same content is one document, whichever rows show it.

Every row is parsed once when the tables are opened: that finds what is wrong, and gives each query and document an id,
the table's own or a hash of its content. Kept of a record are its id and the row that it was first seen in.
"""

import hashlib
import logging
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from colmrl.data.conventions import Convention, Meant, meaning, recognise, tevatron_document, uses
from colmrl.data.jsonl import Row, skip
from colmrl.data.media import content_hash, picture_bytes
from colmrl.data.records import Collection, Document, Examples, Query, Records, Triple
from colmrl.data.tables import Table, open_tables
from colmrl.errors import InputError

log = logging.getLogger(__name__)


def read_tables(source: str, convention: str | None, root: str | None, strict: bool = True) -> Collection:
    """All splits of a table data set. `convention` None: recognised from the columns of each split's first row.

    Raises InputError for columns of no convention, bad rows, no rows.
    """
    tables = dict(open_tables(source, strict))
    base = Path(root or (source if Path(source).is_dir() else Path(source).parent))
    corpus = tables.pop("corpus", None)
    reader = _Reader(base, strict)
    if corpus is not None:
        reader.corpus(corpus)
    for split, table in tables.items():
        reader.split(split, table, _convention(source, split, table, convention))
    if not reader.documents.ids:
        raise InputError(f"{source}: no documents: is this the right file (data.path)?")
    return reader.collection(source)


def _convention(source: str, split: str, table: Table, named: str | None) -> Convention:
    if not len(table):
        raise InputError(f"{source}: split {split!r} is empty: take it out, or fill it")
    if named is not None:
        assert named in get_args(Convention)
        return named  # pyright: ignore[reportReturnType]
    columns = list(table.row(0).values)
    found = recognise(columns)
    if found is None:
        known = ", ".join(get_args(Convention))
        raise InputError(
            f"{source}: split {split!r}: columns {', '.join(columns)}: of no convention that is known: rename them, or "
            f"name one with data.format= ({known}; docs/data.md)"
        )
    return found


class _Seen:
    """Ids in order of first sight, with the place that each is read from again."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.known: dict[str, int] = {}  # id → hash of what it shows
        self.named = False  # whether any record has an id of its own
        self.table, self.row, self.slot = array("i"), array("q"), array("i")

    def add(self, record: Query | Document, place: tuple[int, int, int], row: Row) -> str:
        """The record's id: its own, or a hash of its content. One that shows something else than before is refused."""
        self.named |= bool(record.id)
        text = record.body if isinstance(record, Document) else record.text
        name = record.id or content_id(text, record.images)
        shown = hash((text, tuple(map(content_hash, record.images)))) if record.id else 0
        if name in self.known:
            if self.known[name] != shown:
                raise row.error("id", f"{name!r} shows something else in an earlier row", "make ids unique")
            return name
        self.known[name] = shown
        self.ids.append(name)
        for kept, value in zip((self.table, self.row, self.slot), place, strict=True):
            kept.append(value)
        return name


class _Reader:
    def __init__(self, root: Path, strict: bool):
        self.root, self.strict = root, strict
        self.tables: list[tuple[Table, Callable[[Row], Meant]]] = []
        self.queries, self.documents = _Seen(), _Seen()
        self.triples: dict[str, list[Triple]] = {}
        self.qrels: dict[str, dict[str, dict[str, int]]] = {}
        self.counts: Counter[str] = Counter()
        self.said: list[str] = []

    def corpus(self, table: Table) -> None:
        """Documents that the other splits name."""

        def parse(row: Row) -> Meant:
            return Meant(None, (tevatron_document(row, self.root),))

        self.tables.append((table, parse))
        self._rows(table, parse, lambda number, row, meant: self._document(number, 0, row, meant.positives[0]))

    def split(self, name: str, table: Table, convention: Convention) -> None:
        parse = meaning(convention, self.root)
        unused = [column for column in table.row(0).values if not uses(convention, column)]
        self.said.append(f"{name}: read as {convention}" + (f", without {', '.join(unused)}" if unused else ""))
        self.tables.append((table, parse))
        self.triples[name], self.qrels[name] = [], {}
        apart: dict[str, list[str]] = defaultdict(list)  # negatives that rows of their own give a query

        def keep(number: int, row: Row, meant: Meant) -> None:
            positives, negatives = self._candidates(number, row, meant)
            if meant.query is None:
                self.counts["documents that nobody asked for"] += len(positives)
                return
            query = self.queries.add(meant.query, (len(self.tables) - 1, number, 0), row)
            if not positives:
                apart[query] += negatives
            scores, of_negatives = meant.scores
            for positive, score in zip(positives, scores or [None] * len(positives), strict=True):
                self.triples[name].append(Triple(query, positive, negatives, score, of_negatives))
                self.qrels[name].setdefault(query, {})[positive] = 1

        self._rows(table, parse, keep)
        self._join(name, apart)

    def _rows(self, table: Table, parse: Callable[[Row], Meant], keep: Callable[[int, Row, Meant], Any]) -> None:
        bad = 0
        for number, row in enumerate(table):
            try:
                keep(number, row, parse(row))
            except InputError as error:
                bad += skip(error, bad, self.strict)
        if bad:
            log.warning("skipped %d bad rows of %d", bad, len(table))
            self.counts["bad rows skipped"] += bad

    def _candidates(self, number: int, row: Row, meant: Meant) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if meant.named[0]:
            for name in (*meant.named[0], *meant.named[1]):
                if name not in self.documents.known:
                    field = "positive_document_ids, negative_document_ids"
                    raise row.error(field, f"unknown id {name!r}", "add it to the table corpus")
            return meant.named
        shown = [self._document(number, slot, row, d) for slot, d in enumerate((*meant.positives, *meant.negatives))]
        return tuple(shown[: len(meant.positives)]), tuple(shown[len(meant.positives) :])

    def _document(self, number: int, slot: int, row: Row, document: Document) -> str:
        before = len(self.documents.ids)
        name = self.documents.add(document, (len(self.tables) - 1, number, slot), row)
        self.counts["documents seen again"] += len(self.documents.ids) == before
        return name

    def _join(self, split: str, apart: Mapping[str, list[str]]) -> None:
        judged = self.qrels[split]
        self.triples[split] = [
            replace(t, neg_ids=(*t.neg_ids, *(n for n in apart.get(t.query_id, ()) if n not in judged[t.query_id])))
            for t in self.triples[split]
        ]
        self.counts["queries with no relevant document"] += len(set(apart) - set(judged))

    def collection(self, source: str) -> Collection:
        def document(i: int) -> Document:
            seen = self.documents
            meant = self._read(seen, i)
            return replace((*meant.positives, *meant.negatives)[seen.slot[i]], id=seen.ids[i])

        def query(i: int) -> Query:
            asked = self._read(self.queries, i).query
            assert asked is not None
            return replace(asked, id=self.queries.ids[i])

        queries, documents = Records(self.queries.ids, query), Records(self.documents.ids, document)
        by_content = not (self.queries.named or self.documents.named)
        itself = {name: name for name in self.queries.ids if by_content and name in self.documents.known}
        examples = {split: Examples(queries, documents, triples) for split, triples in self.triples.items()}
        for done in (self.triples, self.queries.known, self.documents.known):
            done.clear()  # the records hold on to this reader, and need none of these
        return Collection(
            source=source,
            documents=documents,
            queries=queries,
            qrels=self.qrels,
            examples=examples,
            itself=itself,
            notes=(*self.said, *(f"{value} {name}" for name, value in self.counts.items() if value)),
        )

    def _read(self, seen: _Seen, i: int) -> Meant:
        table, parse = self.tables[seen.table[i]]
        return parse(table.row(seen.row[i]))


def content_id(text: str, images: tuple[str, ...]) -> str:
    """16 hex digits that the same text and the same pictures (their encoded bytes) share."""
    digest = hashlib.sha256(text.encode())
    for image in images:
        digest.update(b"\0" + picture_bytes(image))
    return digest.hexdigest()[:16]
