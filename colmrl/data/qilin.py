"""Qilin (THUIR/Qilin, arXiv:2503.00501): searches and recommendations of Xiaohongshu with what was shown and clicked.

Tables: notes, search_train, search_test, recommendation_train, recommendation_test, each a file or a folder of shards,
or a configuration of the hub's data set. A clicked note is relevant; a note that was shown and not clicked is a hard
negative of the same search. A note's picture is its cover, the first of `image_path`.

The official qrels' qid is the number of the row in the test table, counted from 0: the official evaluation enumerates
the table, qids run from 0 to its length less one, and the clicks of the published rows are those of such qids and of no
`search_idx`. A test query's id is therefore its row number, a train query's is `train-<search_idx>`.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from colmrl.data.jsonl import Row, skip
from colmrl.data.qilin_rows import (
    DETAILS,
    META_COLUMNS,
    NOTE_COLUMNS,
    NUMBER,
    QUERY_COLUMNS,
    Task,
    cover,
    note_document,
    read_qilin_qrels,
    search_query,
    whole,
)
from colmrl.data.records import Collection, Document, Examples, Query, Records, Splits, Triple
from colmrl.data.tables import ArrowTable, Table, TableRow, open_tables
from colmrl.errors import InputError
from colmrl.files import is_file

_WRITTEN, _NAMED, _THERE = 1, 2, 4  # of a note: it has a text; it names a cover; the cover is there


def read_qilin(
    source: str | Path, strict: bool = True, task: Task = "search", root: str | Path | None = None
) -> Collection:
    """Notes as documents, searches (or recommendations) as queries, clicks as judgements.

    Covers lie under `root` (by default the source); where there is none at all the documents are their texts. Notes
    that were shown but are not in the table are left out and counted. Raises InputError for bad rows and missing covers
    (without `strict`: skipped, text alone), no notes, no searches, and where no note that was shown is known.
    """
    source = str(source)
    tables = _open(source, task, strict)
    documents, notes = _read_notes(tables.pop("notes"), Path(root or source), strict)
    official = Path(source) / f"{task}.test.qrels.csv"
    judged = read_qilin_qrels(official) if "test" in tables and official.is_file() else None
    logs = {split: _read_log(table, split, task, documents, strict) for split, table in tables.items()}
    if not any(len(entry.shown) for entry in logs.values()):
        shown = len(set[str]().union(*(entry.unknown for entry in logs.values())))
        remedy = "give the notes that belong to the searches"
        raise InputError(f"{source}: notes: none of the {shown} notes shown is there: {remedy}")
    for split, entry in logs.items():
        notes += entry.notes(f"{task}_{split}")
    if judged is not None:
        notes.append(_compared(official.name, judged, logs["test"].clicks))
    ids = [name for entry in logs.values() for name in entry.ids]
    owners = [(entry, i) for entry in logs.values() for i in range(len(entry.ids))]
    queries = Records(ids, lambda i: owners[i][0].query(owners[i][1]))
    return Collection(
        source=source,
        documents=documents,
        queries=queries,
        qrels=Splits(logs, lambda split: logs[split].qrels(documents.ids)),
        examples=Splits(logs, lambda split: Examples(queries, documents, logs[split].triples(documents.ids))),
        top_ranked=Splits(logs, lambda split: logs[split].ranked(documents.ids)),
        notes=tuple(notes),
    )


def _open(source: str, task: Task, strict: bool) -> dict[str, Table]:
    """notes, and the splits that there are."""
    wanted = {"notes": "notes", "train": f"{task}_train", "test": f"{task}_test"}
    there = _files(Path(source), wanted.values()) if Path(source).is_dir() else _configurations(source)
    tables = {key: _table(there[name], strict) for key, name in wanted.items() if name in there}
    if "notes" not in tables:
        raise InputError(f"{source}: no table of notes: give notes.parquet, notes.csv, notes.jsonl or notes/")
    if len(tables) == 1:
        raise InputError(f"{source}: neither {task}_train nor {task}_test: give at least one of them")
    return tables


def _files(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Table → its file or folder, of those that are there."""
    there: dict[str, str] = {}
    for name in names:
        found = [path for end in ("", ".parquet", ".csv", ".jsonl") if (path := folder / f"{name}{end}").exists()]
        if len(found) > 1:
            raise InputError(f"{folder}: {name}: both {found[0].name} and {found[1].name} are there: keep one")
        there.update((name, str(path)) for path in found)
    return there


def _configurations(source: str) -> dict[str, str]:
    """Table → what `open_tables` knows it by."""
    import datasets

    try:
        return {name: f"{source}:{name}" for name in datasets.get_dataset_config_names(source)}
    except Exception as error:  # whatever the hub's client raises: of no common class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        where = "no such folder, and not to be had from the hub"
        raise InputError(f"{source}: {where} ({reason}): check data.path") from None


def _table(place: str, strict: bool) -> Table:
    splits = open_tables(place, strict)
    if len(splits) != 1:
        raise InputError(f"{place}: splits {', '.join(splits)}: not one table: keep the shards of one split")
    (table,) = splits.values()
    if not len(table):
        raise InputError(f"{place}: empty: take it out, or fill it")
    return table


def _columns(table: Table, columns: Sequence[str]) -> Table:
    """The table without its embeddings and what else is not asked for, where that saves reading."""
    return table.select(columns) if isinstance(table, ArrowTable) else table


def _each(table: Table, keep: Callable[[int, Row], None], strict: bool) -> int:
    """`keep` every row. Returns how many were skipped; none kept is an InputError."""
    bad = 0
    for index, row in enumerate(table):
        try:
            keep(index, row)
        except InputError as error:
            bad += skip(error, bad, strict)
            if bad == len(table):
                raise InputError(f"none of {bad} rows could be read; the last: {error}") from None
    return bad


def _read_notes(table: Table, root: Path, strict: bool) -> tuple[Records[Document], list[str]]:
    """The documents, and what is to be said of them. Of each its id, its row and what it has are kept."""
    root, seen = root.resolve(), set[str]()
    ids, rows, states = list[str](), array("q"), array("b")

    def keep(index: int, row: Row) -> None:
        name, picture = str(whole(row, "note_idx", row.values.get("note_idx"))), cover(row)
        if name in seen:
            raise row.error("note_idx", f"{name} stands in an earlier row", "keep one")
        written = bool((row.text("note_title", "") + row.text("note_content", "")).strip())
        if not written and not picture:
            raise row.error("note_title, note_content, image_path", "all empty", "give the note a text or a picture")
        seen.add(name)
        ids.append(name)
        rows.append(index)
        there = bool(picture) and is_file(root / picture)
        states.append(written * _WRITTEN | bool(picture) * _NAMED | there * _THERE)

    bad = _each(_columns(table, NOTE_COLUMNS), keep, strict)
    table = _columns(table, (*NOTE_COLUMNS, *META_COLUMNS))
    none, kept, text_alone = not any(state & _THERE for state in states), array("q"), 0
    for i, state in enumerate(states):
        if state & _NAMED and not state & _THERE:
            if not state & _WRITTEN or (strict and not none):
                row = table.row(rows[i])
                remedy = "name the folder of pictures (data.root), or set data.strict=false"
                bad += skip(row.error("image_path", f"no such file {str(root / cover(row))!r}", remedy), bad, strict)
                continue
            text_alone += 1
        kept.append(i)
    if not kept:
        raise InputError(f"{root}: no note has a text, and no picture is there: check data.path and data.root")

    def read(i: int) -> Document:
        row, there = table.row(rows[kept[i]]), states[kept[i]] & _THERE
        return note_document(row, ids[kept[i]], (str(root / cover(row)),) if there else ())

    notes = [f"notes: {bad} bad rows skipped"] if bad else []
    if text_alone:
        others = "nor is any other" if none else "others are"
        notes.append(f"notes: {text_alone} covers are not under {root}, {others}: these documents are text alone")
    return Records([ids[i] for i in kept], read), notes


@dataclass
class _Log:
    """One split. Of a search its id, its row and its notes are kept: positions in the documents, first shown first."""

    table: Table
    task: Task
    ids: list[str] = field(default_factory=list)
    rows: array = field(default_factory=lambda: array("q"))
    shown: array = field(default_factory=lambda: array("q"))
    clicked: array = field(default_factory=lambda: array("b"))
    offsets: array = field(default_factory=lambda: array("q", [0]))
    clicks: dict[str, frozenset[str]] = field(default_factory=dict)  # of the test split, unknown notes too
    unknown: set[str] = field(default_factory=set)
    skipped: int = 0
    left_out: int = 0  # times that unknown notes were shown
    again: int = 0  # times that a note was shown to a search that had it already
    unclicked: int = 0
    unknown_clicks: int = 0  # searches of which only unknown notes were clicked

    def query(self, i: int) -> Query:
        return search_query(self.table.row(self.rows[i]), self.ids[i], self.task)

    def searches(self, ids: Sequence[str]) -> Iterator[tuple[str, dict[str, int]]]:
        for i, name in enumerate(self.ids):
            places = range(self.offsets[i], self.offsets[i + 1])
            yield name, {ids[int(self.shown[place])]: int(self.clicked[place]) for place in places}

    def qrels(self, ids: Sequence[str]) -> dict[str, dict[str, int]]:
        found = ((name, {n: 1 for n, click in shown.items() if click}) for name, shown in self.searches(ids))
        return {name: clicked for name, clicked in found if clicked}

    def triples(self, ids: Sequence[str]) -> Iterator[Triple]:
        for name, shown in self.searches(ids):
            negatives = tuple(note for note, click in shown.items() if not click)
            yield from (Triple(name, note, negatives) for note, click in shown.items() if click)

    def ranked(self, ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        return {name: tuple(shown) for name, shown in self.searches(ids) if shown}

    def notes(self, table: str) -> list[str]:
        said = {
            f"{self.skipped} bad rows skipped": self.skipped,
            f"{self.left_out} results left out: {len(self.unknown)} notes that are not in notes": self.left_out,
            f"{self.again} results show a note again: it stands where it was shown first": self.again,
            f"{self.unclicked} queries without a click": self.unclicked,
            f"{self.unknown_clicks} queries clicked only notes that are not in notes": self.unknown_clicks,
        }
        whole = f"{table}: {len(self.ids)} queries, {len(self.shown)} notes shown, {sum(self.clicked)} clicked"
        return [whole, *(f"{table}: {text}" for text, count in said.items() if count)]


def _read_log(table: Table, split: str, task: Task, documents: Records[Document], strict: bool) -> _Log:
    entry = _Log(_columns(table, (*QUERY_COLUMNS, NUMBER[task], DETAILS[task])), task)
    numbers = set[int]()

    def keep(index: int, row: Row) -> None:
        number = whole(row, NUMBER[task], row.values.get(NUMBER[task]))
        if number in numbers:
            raise row.error(NUMBER[task], f"{number} stands in an earlier row", "keep one")
        at = row.line if isinstance(row, TableRow) else row.line - 1  # lines of text count from 1
        name = str(at) if split == "test" else f"{split}-{number}"
        results = search_query(row, name, task).meta["exposed"]
        clicks: dict[str, int] = {}
        for result in results:
            clicks[result["note"]] = max(result["click"], clicks.get(result["note"], 0))
        known = {note: click for note, click in clicks.items() if note in documents.position}
        numbers.add(number)
        entry.ids.append(name)
        entry.rows.append(index)
        entry.shown.extend(documents.position[note] for note in known)
        entry.clicked.extend(known.values())
        entry.offsets.append(len(entry.shown))
        entry.again += len(results) - len(clicks)
        entry.left_out += sum(result["note"] not in known for result in results)
        entry.unknown.update(clicks.keys() - known.keys())
        entry.unclicked += not any(clicks.values())
        entry.unknown_clicks += any(clicks.values()) and not any(known.values())
        if split == "test":
            entry.clicks[name] = frozenset(note for note, click in clicks.items() if click)

    entry.skipped = _each(entry.table, keep, strict)
    return entry


def _compared(name: str, official: Mapping[str, Mapping[str, int]], clicks: Mapping[str, frozenset[str]]) -> str:
    """How the official judgements and the clicks of the table agree."""
    known = {row: frozenset(judged) for row, judged in official.items()}
    other = [row for row, clicked in clicks.items() if known.get(row, frozenset()) != clicked]
    said = f"{name}: {len(clicks) - len(other)} of {len(clicks)} rows have the clicks that it lists under their number"
    if other:
        everywhere = set(known.values())
        moved = sum(clicks[row] in everywhere for row in other)
        said += (
            f", {len(other)} have not ({moved} of them have another number's: a table in another order does not join)"
        )
    return f"{said}; {len(known.keys() - clicks.keys())} of its {len(known)} queries are not in the table"
