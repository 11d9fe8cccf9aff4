"""Rows of Qilin's tables: lists as numpy prints them in CSV, a note as a document, a search as a query; the qrels.

In parquet lists are lists. In CSV they are text, "[1 2\\n 3]", "['a' 'b']", "[array([4e+05, 1.9])\\n array([7, 8])]",
"[{'click': 1.0, 'page_time': nan}\\n {…}]": read here by a grammar of their own, never evaluated.
"""

import codecs
import math
import re
from pathlib import Path
from typing import Any, Literal

from colmrl.data.jsonl import Row
from colmrl.data.records import Document, Query
from colmrl.errors import InputError, located
from colmrl.files import bounded_lines

Task = Literal["search", "recommendation"]
NUMBER: dict[Task, str] = {"search": "search_idx", "recommendation": "request_idx"}
DETAILS: dict[Task, str] = {"search": "search_result_details_with_idx", "recommendation": "rec_result_details_with_idx"}
QUERY_COLUMNS = ("query", "query_from_type", "user_idx", "session_idx", "recent_clicked_note_idxs")
NOTE_COLUMNS = ("note_idx", "note_title", "note_content", "image_path")
META_COLUMNS = ("note_type", "commercial_flag", "taxonomy1_id", "taxonomy2_id", "taxonomy3_id", "image_num")
META_COLUMNS += ("content_length", "video_duration", "video_height", "video_width", "imp_num", "click_num", "like_num")
META_COLUMNS += ("collect_num", "comment_num", "share_num", "view_time")
_TIMES = ("search_timestamp", "request_timestamp")  # seconds, milliseconds

_TOKEN = re.compile(
    r"""\s*(?:(?P<open>array\(|[\[({])|(?P<close>,\s*dtype=[\w<>]+\s*\)|[\])}])|(?P<mark>[,:])"""
    r"""|(?P<text>'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*")"""
    r"""|(?P<word>(?:[-+]?(?:nan|inf)|None|True|False)\b)"""
    r"""|(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?))\s*""",
    re.ASCII | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\", "'": "'", '"': '"', "\n": ""}
_WORDS = {"None": None, "True": True, "False": False}
_CLOSES = {"[": "]", "(": ")", "{": "}", "array(": ")"}
_COLON = object()
_DEEPEST = 8


def parse_cell(text: str) -> Any:
    """The value that `text` prints: lists, arrays and tuples as lists, dicts, strings, numbers. ValueError: none."""
    at, stack, opened = 0, [[]], [""]
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"cannot be read at character {at}, {text[at : at + 20]!r}")
        kind, at = match.lastgroup, match.end()
        token = match[str(kind)]
        match kind:
            case "open":
                if len(stack) > _DEEPEST:
                    raise ValueError(f"nested more than {_DEEPEST} deep")
                stack.append([])
                opened.append(token)
            case "close":
                if _CLOSES.get(opened[-1]) != token[-1]:
                    raise ValueError(f"{token[-1]!r} before character {at} closes nothing")
                stack[-2].append(_closed(opened.pop(), stack.pop()))
            case "mark":
                if token == ":":
                    stack[-1].append(_COLON)
            case "text":
                stack[-1].append(_ESCAPE.sub(_unescaped, token[1:-1]) if "\\" in token else token[1:-1])
            case "word":
                stack[-1].append(_WORDS[token] if token in _WORDS else float(token))
            case _:
                stack[-1].append(int(token) if token.lstrip("+-").isdigit() else float(token))
    if len(stack) > 1:
        raise ValueError(f"{opened[-1]!r} is not closed")
    if len(stack[0]) != 1 or stack[0][0] is _COLON:
        raise ValueError(f"{len(stack[0])} values, not one")
    return stack[0][0]


def _closed(opened: str, items: list[Any]) -> Any:
    """What the brackets hold."""
    if opened == "{":
        keys, colons, values = items[::3], items[1::3], items[2::3]
        whole = len(keys) == len(values) and all(mark is _COLON for mark in colons)
        if not whole or _COLON in values or not all(isinstance(key, str) for key in keys):
            raise ValueError("a dict that is not {'key': value, …}")
        return dict(zip(keys, values, strict=True))
    if any(item is _COLON for item in items):
        raise ValueError("a colon outside a dict")
    if opened == "array(":
        if len(items) != 1:
            raise ValueError(f"an array of {len(items)} values, not one list")
        return items[0]
    return items


def _unescaped(match: re.Match[str]) -> str:
    code = match[1] or match[2] or match[3]
    if code:
        return chr(int(code, 16))
    if match[4] not in _ESCAPED:
        raise ValueError(f"the escape {match[0]!r} is not known")
    return _ESCAPED[match[4]]


def items(row: Row, column: str) -> list[Any]:
    """A list, or one as numpy prints it; absent or null: empty."""
    value = row.values.get(column)
    if isinstance(value, str):
        try:
            value = parse_cell(value)
        except (ValueError, OverflowError) as error:
            raise row.error(column, str(error)[:120], "write a list, or one as numpy prints it whole") from None
    if value is not None and not isinstance(value, list):
        raise row.error(column, f"{_short(value)} is a {type(value).__name__}", "write a list")
    return value or []


def whole(row: Row, column: str, value: Any) -> int:
    """An integer, which a column with gaps has as a float."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise row.error(column, "missing" if value is None else f"{_short(value)} is no whole number", "write one")


def plain(value: Any) -> Any:
    """A number without its `.0`; NaN is None."""
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return int(value) if value.is_integer() else value
    return value


def cover(row: Row) -> str:
    """The first of a note's pictures, or nothing."""
    paths = items(row, "image_path")
    if not all(isinstance(path, str) for path in paths):
        raise row.error("image_path", f"{_short(paths)} has what is no text", "write a list of paths")
    return row.inside("image_path", row.encodable("image_path", paths[0])) if paths else ""


def note_document(row: Row, name: str, images: tuple[str, ...]) -> Document:
    meta = {key: value for key in META_COLUMNS if (value := plain(row.values.get(key))) is not None}
    return Document(name, row.text("note_content", ""), row.text("note_title", ""), images, meta)


def exposed(row: Row, task: Task) -> list[dict[str, Any]]:
    """What was shown, in order of position: {"note", "position", "click" (0 or 1), "page_time" (s), "timestamp"}."""
    column, found = DETAILS[task], list[dict[str, Any]]()
    if row.values.get(column) is None:
        raise row.error(column, "missing", "give each search what it showed")
    for item in items(row, column):
        if not isinstance(item, dict):
            raise row.error(column, f"{_short(item)} is no result", "write {'note_idx': …, 'position': …, 'click': …}")
        click, page_time = item.get("click"), plain(item.get("page_time"))
        if isinstance(click, str | list | dict) or click not in (0, 1):
            raise row.error(f"{column}.click", f"{_short(click)} is neither 0 nor 1", "write one of them")
        if page_time is not None and not isinstance(page_time, int | float):
            raise row.error(f"{column}.page_time", f"{_short(page_time)} is no number", "write seconds, or nan")
        time = next((value for name in _TIMES if (value := plain(item.get(name))) is not None), None)
        found.append(
            {
                "note": str(whole(row, f"{column}.note_idx", item.get("note_idx"))),
                "position": whole(row, f"{column}.position", item.get("position")),
                "click": int(click),
                "page_time": page_time,
                "timestamp": None if time is None else whole(row, f"{column}.timestamp", time),
            }
        )
    return sorted(found, key=lambda item: item["position"])


def search_query(row: Row, name: str, task: Task) -> Query:
    """A search, or a request for recommendations, with what it showed as `meta["exposed"]`."""
    text = row.text("query")
    if not text.strip():
        raise row.error("query", "empty", "give the query a text")
    recent = [whole(row, "recent_clicked_note_idxs", note) for note in items(row, "recent_clicked_note_idxs")]
    columns = (NUMBER[task], "user_idx", "session_idx", "query_from_type")
    meta = {column: value for column in columns if (value := plain(row.values.get(column))) is not None}
    return Query(name, text, meta={**meta, "recent_clicked_note_idxs": recent, "exposed": exposed(row, task)})


def read_qilin_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """The official judgements, `qid,pid` a line: row number in the test table → note_idx → 1."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file: check the path")
    qrels: dict[str, dict[str, int]] = {}
    with path.open("rb") as lines:
        for number, line in bounded_lines(lines, path):
            fields = line.removeprefix(codecs.BOM_UTF8).strip()
            if number == 1:
                if fields != b"qid,pid":
                    raise located(path, 1, "line", f"{fields[:40]!r} is not the header", "begin with qid,pid")
            elif fields:
                found = re.fullmatch(rb"(\d{1,18}),(\d{1,18})", fields)
                if not found:
                    raise located(path, number, "line", f"{fields[:40]!r} is not two numbers", "write qid,pid")
                qrels.setdefault(str(int(found[1])), {})[str(int(found[2]))] = 1
    if not qrels:
        raise InputError(f"{path}: no judgements: write qid,pid lines")
    return qrels


def _short(value: Any) -> str:
    return f"{value!r:.60}"
