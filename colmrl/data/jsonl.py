"""JSON lines in, one checked record a line; what is wrong is said with file, line, field, value and remedy."""

import io
import json
import logging
import math
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from colmrl.data.records import Document, Query, Records
from colmrl.errors import InputError, located
from colmrl.files import absolute, bounded_lines, climbs, is_file, write_whole

log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R", bound=Query | Document)
_ENCODER = json.JSONEncoder(ensure_ascii=False)


class Row:
    """One line's object, with accessors that know where they are. `line` counts from 1."""

    def __init__(self, path: Path, line: int, values: dict[str, Any], start: int = 0, size: int = 0):
        self.path, self.line, self.values, self.start, self.size = path, line, values, start, size

    def error(self, field: str, problem: str, remedy: str) -> InputError:
        return located(self.path, self.line, field, problem, remedy)

    def first(self, fields: Sequence[str]) -> str:
        """The first of these that the row has."""
        found = next((field for field in fields if self.values.get(field) is not None), None)
        if found is None:
            raise self.error(" | ".join(fields), "missing", f"give one (the row has {', '.join(self.values)})")
        return found

    def text(self, field: str, default: str | None = None) -> str:
        """A string; absent or null gives `default`, or an error where there is none."""
        value = self.values.get(field)
        if value is None and default is not None:
            return default
        if value is None:
            raise self.error(field, "missing", f"give each line a {field!r} (it has {', '.join(self.values)})")
        if isinstance(value, str):
            return self.encodable(field, value)
        if field.endswith("id") and isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        raise self.error(field, f"{value!r} is a {type(value).__name__}", "write it as a string")

    def texts(self, field: str) -> tuple[str, ...]:
        """A string or a list of strings, as a tuple; absent or null: empty."""
        value = self.values.get(field)
        if value is None:
            return ()
        items = value if isinstance(value, list) else [value]
        for item in items:
            if not isinstance(item, str):
                raise self.error(field, f"{item!r} is a {type(item).__name__}", "write a string or a list of strings")
            self.encodable(field, item)
        return tuple(items)

    def encodable(self, field: str, value: str) -> str:
        """The same text, unless it cannot be written as UTF-8."""
        if value.isascii():
            return value
        try:
            value.encode()
        except UnicodeEncodeError:
            raise self.error(field, f"{value[:40]!r} has half a surrogate pair", "write valid Unicode") from None
        return value

    def numbers(self, field: str) -> tuple[float, ...] | None:
        value = self.values.get(field)
        if value is None:
            return None
        items = value if isinstance(value, list) else [value]
        for item in items:
            if isinstance(item, bool) or not isinstance(item, int | float):
                raise self.error(field, f"{item!r} is a {type(item).__name__}", "write a number")
        try:
            return tuple(float(item) for item in items)
        except OverflowError:
            raise self.error(field, "a number beyond all floats", "write a smaller one") from None

    def scores(self, field: str, of: str, count: int) -> tuple[float, ...] | None:
        """A teacher's scores, one for each of the `count` records in column `of`; absent or null: None."""
        found = self.numbers(field)
        if found is None:
            return None
        if len(found) != count:
            raise self.error(field, f"{len(found)} for {count} {of}", "give one score each")
        if not all(map(math.isfinite, found)):
            raise self.error(field, f"{found} are not all finite", "leave the column out of rows without scores")
        return found

    def mapping(self, field: str) -> dict[str, Any]:
        """An object; absent or null: empty."""
        value = self.values.get(field)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.error(field, f"{value!r} is a {type(value).__name__}", "write an object {…}")
        return value

    def picture(self, field: str, name: str, root: Path, remedy: str) -> str:
        """The absolute path of a picture named relative to `root`, and below it, or absolutely; it must exist."""
        self.inside(field, name)
        path = root / name
        if not is_file(path):
            raise self.error(field, f"no such file {str(path)!r}", remedy)
        return absolute(path)

    def inside(self, field: str, name: str) -> str:
        """The same name of a file, unless it is a relative one that leads out of the folder that it starts in."""
        if climbs(name):
            remedy = "put the file below that folder, or name it absolutely"
            raise self.error(field, f"{name!r} climbs out of the folder that paths start in", remedy)
        return name


def read_rows(path: str | Path, parse: Callable[[Row], T], strict: bool = True) -> Iterator[T]:
    """`parse(row)` for each line that is not blank.

    strict: the first bad line raises InputError. Otherwise bad lines are skipped, the first three and the count
    are logged, and a file with no good line at all still raises.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file: check the path")
    good, bad, start, end = 0, 0, 0, 0
    with path.open("rb") as lines:
        for number, line in bounded_lines(lines, path):
            start, end = end, end + len(line)
            if not line.strip():
                continue
            try:
                record = parse(_row(path, number, line, start))
            except InputError as error:
                bad += skip(error, bad, strict)
                continue
            good += 1
            yield record
    if bad:
        log.warning("%s: skipped %d bad lines, read %d", path, bad, good)
        if not good:
            raise InputError(f"{path}: none of its {bad} lines could be read: see the warnings above")


def skip(error: InputError, skipped_before: int, strict: bool) -> int:
    """Raise a bad line's error (strict), or show it if it is one of the first three; returns 1, to be counted."""
    if strict:
        raise error
    if skipped_before < 3:
        log.warning("skipped %s", error)
    return 1


class IndexedLines:
    """Lines of files by their offsets: of each 32 bytes are kept. A file is opened once, for forked processes too: each
    read says where it begins.
    """

    def __init__(self) -> None:
        self.paths: list[Path] = []
        self._file, self._start, self._size, self._line = array("q"), array("q"), array("q"), array("q")
        self._open: dict[int, io.FileIO] = {}

    def add(self, row: Row) -> None:
        if not self.paths or self.paths[-1] != row.path:
            self.paths.append(row.path)
        self._file.append(len(self.paths) - 1)
        self._start.append(row.start)
        self._size.append(row.size)
        self._line.append(row.line)

    def row(self, index: int) -> Row:
        number = self._file[index]
        file = self._open.get(number)
        if file is None:
            file = self._open[number] = self.paths[number].open("rb", buffering=0)
        start = self._start[index]
        return _row(self.paths[number], self._line[index], os.pread(file.fileno(), self._size[index], start), start)

    def __len__(self) -> int:
        return len(self._line)

    def __iter__(self) -> Iterator[Row]:
        return map(self.row, range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_open": {}}


def indexed_lines(paths: Sequence[Path], strict: bool = True) -> IndexedLines:
    """The files' lines, each an object; raises as `read_rows`."""
    lines = IndexedLines()
    for path in paths:
        for row in read_rows(path, lambda row: row, strict):
            lines.add(row)
    return lines


def read_records(path: str | Path, parse: Callable[[Row], R], strict: bool = True, id_field: str = "_id") -> Records[R]:
    """One record a line, checked now and read again when asked for: of each only its id and its place are kept.

    Raises InputError where an id is empty or stands twice; otherwise as `read_rows`.
    """
    seen, lines = set[str](), IndexedLines()

    def check(row: Row) -> str:
        name = parse(row).id
        if not name or name in seen:
            said = f"{name!r} {'stands on an earlier line' if name else 'is empty'}"
            raise row.error(id_field, said, "make ids unique")
        seen.add(name)
        lines.add(row)
        return name

    ids = list(read_rows(path, check, strict))
    return Records(ids, lambda index: parse(lines.row(index)))


def _row(path: Path, number: int, line: bytes, start: int) -> Row:
    try:
        utf8 = line.startswith(b'{"')  # else json looks which of the encodings of Unicode it is
        values = json.loads(line.decode("utf-8", "surrogatepass") if utf8 else line)
    except (ValueError, RecursionError) as error:  # ValueError: JSON and Unicode errors alike
        raise located(path, number, "line", f"not JSON ({error})", "write one JSON object a line") from None
    if not isinstance(values, dict):
        raise located(path, number, "line", f"a {type(values).__name__}, not an object", "write {…} on each line")
    return Row(path, number, values, start, len(line))


def write_rows(path: str | Path, rows: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> int:
    """Write a JSON-lines file in one piece: under a temporary name, then renamed. Returns the number of rows."""
    count = 0

    def write(partial: Path) -> None:
        nonlocal count
        with partial.open("w", encoding="utf-8") as out:
            for row in rows:
                out.write(_ENCODER.encode(row) + "\n")
                count += 1

    write_whole(Path(path), write)
    return count
