"""Ready sequences: who chose what in which order; the items before one are the query, that one is the answer.

user_sequence.txt     user item item …: a user a line, in time order
item_meta.jsonl       {"item", "text", "image_path", "caption", "semantic_summary", "semantic_summary_small"}, or
item_short_text.txt   item text: an item a line; read where there is no item_meta.jsonl

Split by leaving one out (as SASRec does, arXiv:1808.09781): of a user's n items the last is the test target, the one
before it the valid target, positions 1 … n-3 are train targets. A user with two items has one train target, a user
with one has none. Query ids are `<user>/<position of the target>`, counted from 0 in the sequence as read; their
`meta` has the user and all item ids before the target, oldest first. Items are kept in memory; queries are made when
asked for.
"""

import codecs
import logging
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from colmrl.config import ItemForm
from colmrl.data.jsonl import Row, read_rows, skip
from colmrl.data.records import Collection, Document, Query, Records
from colmrl.errors import InputError, located
from colmrl.files import bounded_lines

log = logging.getLogger(__name__)

INSTRUCTION = "Which item comes next? Items so far, newest first:"  # so that what is too long loses the oldest


@dataclass
class _Catalogue:
    """The items that can be shown, in file order, each with every form that it has; and those left out."""

    forms: dict[str, dict[str, str]] = field(default_factory=dict)
    without: set[str] = field(default_factory=set)  # the chosen form
    untitled: list[str] = field(default_factory=list)  # shown by their ids, having no text
    lost: int = 0  # pictures that are named but not there


@dataclass
class _Sequences:
    """All users' items end to end, as positions in the catalogue: user i has items[offsets[i] : offsets[i + 1]]."""

    users: list[str] = field(default_factory=list)
    items: array = field(default_factory=lambda: array("l"))
    offsets: array = field(default_factory=lambda: array("l", [0]))
    skipped: int = 0  # bad lines
    unshown: int = 0  # interactions with items that the catalogue left out
    unknown: int = 0  # interactions with items that no file describes


def read_sequences(folder: str | Path, strict: bool = True, item_form: str = "text", history: int = 20) -> Collection:
    """Items as documents, shown as `item_form`; queries show the last `history` items before their target.

    raw_image shows pictures alone; the other forms are texts. An item without text is shown by its id, since sequences
    stay whole with it, and counted. One that lacks another form, a picture that is not there, an unknown item and a bad
    line are errors; without `strict` such items are left out, and sequences go on as if nobody had ever had them.
    """
    folder = _folder(folder)
    if item_form not in get_args(ItemForm):
        raise InputError(f"item_form: {item_form!r}: unknown: choose from {', '.join(get_args(ItemForm))}")
    if history < 1:
        raise InputError(f"history: {history}: must be at least 1: say how many items a query shows")
    catalogue = _read_items(folder, item_form, strict)
    sequences = _read_users(folder / "user_sequence.txt", catalogue, strict)
    queries, qrels = _leave_one_out(sequences, catalogue, item_form, history)
    if not queries:
        raise InputError(f"{folder / 'user_sequence.txt'}: no user has two items to learn from: give longer sequences")
    notes = _notes(sequences, catalogue, item_form)
    names = list(catalogue.forms)
    documents = Records(names, lambda i: _document(names[i], catalogue.forms[names[i]], item_form))
    return Collection(str(folder), documents, queries, qrels, notes=notes)


def _folder(folder: str | Path) -> Path:
    folder = Path(folder)
    if not (folder / "user_sequence.txt").is_file():
        raise InputError(f"{folder}: no user_sequence.txt: give a folder of ready sequences (colmrl prepare amazon)")
    return folder


def _read_items(folder: Path, form: str, strict: bool) -> _Catalogue:
    meta, short = folder / "item_meta.jsonl", folder / "item_short_text.txt"
    catalogue = _Catalogue()

    def parse(row: Row) -> None:
        name = row.text("item")
        if not name or name.split() != [name]:
            raise row.error("item", f"{name!r} is no item id", "write one without spaces")
        if name in catalogue.forms or name in catalogue.without:
            raise row.error("item", f"{name!r} stands on an earlier line", "keep one")
        forms = {key: row.text(key, "").strip() for key in get_args(ItemForm) if key != "raw_image"}
        forms["raw_image"] = picture(row, row.text("image_path", ""))
        forms = {key: value for key, value in forms.items() if value}
        if form == "text" and form not in forms:
            catalogue.untitled.append(name)
            forms[form] = name
        if form not in forms:
            catalogue.without.add(name)
            key = "image_path" if form == "raw_image" else form
            raise row.error(key, f"item {name!r} has none", "give it one, choose another item_form, or strict=false")
        catalogue.forms[name] = forms

    def picture(row: Row, name: str) -> str:
        try:
            return name and row.picture("image_path", name, folder, "paths are relative to the folder, or absolute")
        except InputError as error:
            if strict:
                raise
            catalogue.lost += 1
            if catalogue.lost <= 3:
                log.warning("left out a picture: %s", error)
            return ""

    if meta.is_file():
        for _ in read_rows(meta, parse, strict):
            pass
    elif not short.is_file():
        raise InputError(f"{folder}: neither item_meta.jsonl nor item_short_text.txt: describe the items in one")
    elif form != "text":
        raise InputError(
            f"item_form: {form}: {folder} has item_short_text.txt alone: choose text, or write {meta.name}"
        )
    else:
        _read_lines(short, ("item", "text"), parse, strict)
    if not catalogue.forms:
        raise InputError(
            f"{meta if meta.is_file() else short}: no item has the form {form!r}: choose another item_form"
        )
    return catalogue


def _read_lines(path: Path, fields: tuple[str, str], parse: Callable[[Row], None], strict: bool) -> int:
    """`parse` each line that is not blank, its first word and the rest as `fields`. Returns how many were skipped."""
    skipped = 0
    with path.open("rb") as lines:
        for number, line in bounded_lines(lines, path):
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if not line.strip():
                continue
            try:
                parse(_split(path, number, line, fields))
            except InputError as error:
                skipped += skip(error, skipped, strict)
    return skipped


def _split(path: Path, number: int, line: bytes, fields: tuple[str, str]) -> Row:
    try:
        first, _, rest = line.decode().strip().replace("\t", " ").partition(" ")
    except UnicodeDecodeError as error:
        raise located(path, number, "line", f"not UTF-8 ({error.reason})", "save the file as UTF-8") from None
    return Row(path, number, {fields[0]: first, fields[1]: rest})


def _read_users(path: Path, catalogue: _Catalogue, strict: bool) -> _Sequences:
    position = {name: i for i, name in enumerate(catalogue.forms)}
    read, seen = _Sequences(), set[str]()

    def parse(row: Row) -> None:
        user, names = row.text("user"), row.text("items").split()
        if user in seen:
            raise row.error("user", f"{user!r} stands on an earlier line", "write one line a user")
        if not names:
            raise row.error("items", f"user {user!r} has none", "give some, or take the line out")
        unknown = [name for name in names if name not in position and name not in catalogue.without]
        if unknown and strict:
            raise row.error("items", f"unknown item {unknown[0]!r}", "describe it with the other items")
        seen.add(user)
        kept = [position[name] for name in names if name in position]
        read.unknown += len(unknown)
        read.unshown += len(names) - len(unknown) - len(kept)
        read.users.append(user)
        read.items.extend(kept)
        read.offsets.append(len(read.items))

    read.skipped = _read_lines(path, ("user", "items"), parse, strict)
    if not read.users:
        raise InputError(f"{path}: no users: write user item item … on each line")
    return read


def _leave_one_out(
    sequences: _Sequences, catalogue: _Catalogue, form: str, history: int
) -> tuple[Records[Query], dict[str, dict[str, dict[str, int]]]]:
    """Queries, a user's in order, and their judgements; a split that has none is not there."""
    names = list(catalogue.forms)
    answers = [{name: 1} for name in names]  # shared by all queries with the same target
    ids: list[str] = []
    targets, starts = array("l"), array("l")  # where in `sequences.items` the target stands, and its user's first item
    qrels: dict[str, dict[str, dict[str, int]]] = {split: {} for split in ("train", "valid", "test")}
    for i, user in enumerate(sequences.users):
        start, end = sequences.offsets[i], sequences.offsets[i + 1]
        held_out = {end - 1: "test", end - 2: "valid"} if end - start >= 3 else {}
        for target in range(start + 1, end):
            ids.append(f"{user}/{target - start}")
            targets.append(target)
            starts.append(start)
            qrels[held_out.get(target, "train")][ids[-1]] = answers[sequences.items[target]]

    def read(i: int) -> Query:
        before = sequences.items[starts[i] : targets[i]]
        forms = [catalogue.forms[names[item]][form] for item in reversed(before[-history:])]
        meta = {"user": ids[i].rpartition("/")[0], "history": [names[item] for item in before]}
        if form == "raw_image":
            return Query(ids[i], INSTRUCTION, tuple(forms), meta)
        return Query(ids[i], "\n".join([INSTRUCTION, *(" ".join(text.split()) for text in forms)]), meta=meta)

    return Records(ids, read), {split: judged for split, judged in qrels.items() if judged}


def _document(name: str, forms: Mapping[str, str], form: str) -> Document:
    if form == "raw_image":
        return Document(name, images=(forms[form],), meta=forms)
    return Document(name, forms[form], meta=forms)


def _notes(sequences: _Sequences, catalogue: _Catalogue, form: str) -> tuple[str, ...]:
    lengths = [b - a for a, b in zip(sequences.offsets, sequences.offsets[1:], strict=False)]
    items = len(catalogue.forms)
    notes = [f"{len(lengths)} users, {items} items, {len(sequences.items)} interactions"]
    if alone := items - len(set(sequences.items)):
        notes.append(f"{alone} items that no user has stay in the catalogue")
    if short := sum(length < 3 for length in lengths):
        pairs = lengths.count(2)
        notes.append(f"{short} users with fewer than 3 items: no test or valid query; {pairs} give a train query")
    if untitled := catalogue.untitled:
        notes.append(f"{len(untitled)} items without text are shown by their ids: {', '.join(untitled[:3])}")
    if catalogue.without:
        cut = f"{sequences.unshown} interactions with them were taken out of the sequences"
        notes.append(f"{len(catalogue.without)} items without {form} were left out; {cut}")
    if catalogue.lost:
        notes.append(f"{catalogue.lost} pictures that item_meta.jsonl names are not there")
    if sequences.unknown:
        notes.append(f"{sequences.unknown} interactions with items that no line describes were taken out")
    if sequences.skipped:
        notes.append(f"{sequences.skipped} bad lines of user_sequence.txt were skipped")
    return tuple(notes)
