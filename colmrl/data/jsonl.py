"""JSON lines in, one checked record a line; what is wrong is said with file, line, field, value and remedy."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from colmrl.errors import InputError, located
from colmrl.files import write_whole

log = logging.getLogger(__name__)
T = TypeVar("T")


class Row:
    """One line's object, with accessors that know where they are."""

    def __init__(self, path: Path, line: int, values: dict[str, Any]):
        self.path, self.line, self.values = path, line, values

    def error(self, field: str, problem: str, remedy: str) -> InputError:
        return located(self.path, self.line, field, problem, remedy)

    def text(self, field: str, default: str | None = None) -> str:
        """A string; absent or null gives `default`, or an error where there is none."""
        value = self.values.get(field)
        if value is None and default is not None:
            return default
        if value is None:
            raise self.error(field, "missing", f"give each line a {field!r} (it has {', '.join(self.values)})")
        if isinstance(value, str):
            return self._encodable(field, value)
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
            self._encodable(field, item)
        return tuple(items)

    def _encodable(self, field: str, value: str) -> str:
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
        return tuple(float(item) for item in items)

    def mapping(self, field: str) -> dict[str, Any]:
        """An object; absent or null: empty."""
        value = self.values.get(field)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.error(field, f"{value!r} is a {type(value).__name__}", "write an object {…}")
        return value

    def picture(self, field: str, name: str, root: Path, remedy: str) -> str:
        """The absolute path of a picture named relative to `root`, or absolutely; it must exist."""
        path = root / name
        if "\0" in name or not path.is_file():
            raise self.error(field, f"no such file {str(path)!r}", remedy)
        return str(path.resolve())


def read_rows(path: str | Path, parse: Callable[[Row], T], strict: bool = True) -> Iterator[T]:
    """`parse(row)` for each line that is not blank.

    strict: the first bad line raises InputError. Otherwise bad lines are skipped, the first three and the count
    are logged, and a file with no good line at all still raises.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file: check the path")
    good, bad = 0, 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = parse(_row(path, number, line))
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


def _row(path: Path, number: int, line: bytes) -> Row:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:  # ValueError: JSON and Unicode errors alike
        raise located(path, number, "line", f"not JSON ({error})", "write one JSON object a line") from None
    if not isinstance(values, dict):
        raise located(path, number, "line", f"a {type(values).__name__}, not an object", "write {…} on each line")
    return Row(path, number, values)


def write_rows(path: str | Path, rows: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> int:
    """Write a JSON-lines file in one piece: under a temporary name, then renamed. Returns the number of rows."""
    count = 0

    def write(partial: Path) -> None:
        nonlocal count
        with partial.open("w", encoding="utf-8") as out:
            for row in rows:
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1

    write_whole(Path(path), write)
    return count
