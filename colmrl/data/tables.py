"""Tables: local parquet, Arrow, CSV and JSON-lines files, and data sets of the hub, a row at a time.

Parquet, Arrow, CSV and the hub are memory maps of `datasets`; JSON lines are read by their offsets, so that what
is wrong is said with file and line. Nothing but the row that is asked for is in memory.

A picture that lies in a table has a reference of its own, `SOURCE/SPLIT/doc_ROW.png#AT`: the row counted from 0, and
where in the row, e.g. `neg_target/2`; without AT it is the row's first picture.
"""

import functools
import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from colmrl.data.jsonl import IndexedLines, Row, indexed_lines
from colmrl.errors import InputError
from colmrl.files import absolute, climbs, write_whole

_REFERENCE = re.compile(r"(?P<source>.+)/(?P<split>[^/]+)/doc_(?P<row>\d+)\.png(?:#(?P<at>.+))?")
_SHARD = re.compile(r"[-_.](?P<number>\d+)(-of-(?P<all>\d+))?$")
_KINDS = (".parquet", ".arrow", ".csv")
_SPLITS = {"train", "test", "validation", "valid", "val", "dev"}


class TableRow(Row):
    """A row of a table that is no text file: its errors say which, counted from 0."""

    def error(self, field: str, problem: str, remedy: str) -> InputError:
        return InputError(f"{self.path}: row {self.line}: {field}: {problem}: {remedy}")

    def reference(self, at: str) -> str:
        return f"{self.path}/doc_{self.line}.png#{at}"


class ArrowTable:
    """A split of a `datasets.Dataset`; pictures stay encoded."""

    def __init__(self, name: str, dataset: Any):
        self.name, self._dataset = name, dataset.with_format("arrow")
        self._last: tuple[int, Row] | None = None  # a row's documents are asked for one after another

    def __len__(self) -> int:
        return len(self._dataset)

    def select(self, columns: Collection[str]) -> "ArrowTable":
        """The same rows with these of its columns; the others are not read."""
        kept = [column for column in self._dataset.column_names if column in columns]
        return ArrowTable(self.name, self._dataset.select_columns(kept))

    def row(self, index: int) -> Row:
        if self._last is None or self._last[0] != index:
            values = self._dataset[index : index + 1].to_pylist()[0]
            self._last = index, TableRow(Path(self.name), index, values)
        return self._last[1]

    def __iter__(self) -> Iterator[Row]:
        start = 0
        for batch in self._dataset.iter(batch_size=64):
            for number, values in enumerate(batch.to_pylist()):
                yield TableRow(Path(self.name), start + number, values)
            start += len(batch)


Table = ArrowTable | IndexedLines  # rows of one split


@functools.lru_cache(maxsize=32)
def open_tables(source: str, strict: bool = True) -> Mapping[str, Table]:
    """Split → table, of a file, a folder, or a data set of the hub (`owner/name`, or `owner/name:config`).

    The files of a folder are splits by their names; where none is a table of a known kind, `datasets` says.
    """
    path = Path(source)
    if path.is_file() and (path.suffix == ".jsonl" or (path.suffix == ".json" and not _is_array(path))):
        return {_split_of(path): indexed_lines([path], strict)}
    kind, splits = _splits(path)
    if kind == ".jsonl":
        return {split: indexed_lines([Path(file) for file in files], strict) for split, files in splits.items()}
    return _load(source, path, kind, splits)


def _splits(folder: Path) -> tuple[str, dict[str, list[str]]]:
    """The kind of a folder's (or its folder `data`'s) tables, and split → files: their names without shard numbers are
    splits; a single one of another name is "train". Raises InputError for several kinds, and for a missing shard.
    """
    kinds = [kind for kind in (".jsonl", *_KINDS) if any(folder.glob(f"*{kind}")) or any(folder.glob(f"data/*{kind}"))]
    if len(kinds) > 1:
        raise InputError(f"{folder}: holds {' and '.join(kinds)}: name the file, or take one kind away")
    kind = kinds[0] if kinds else ""
    found: dict[str, list[str]] = {}
    shards: dict[tuple[str, str], set[int]] = {}
    for file in sorted([*folder.glob(f"*{kind}"), *folder.glob(f"data/*{kind}")]) if kind else ():
        split, shard = _SHARD.sub("", file.stem), _SHARD.search(file.stem)
        found.setdefault(split, []).append(str(file))
        if shard and shard["all"]:
            shards.setdefault((split, shard["all"]), set()).add(int(shard["number"]))
    for (split, count), numbers in shards.items():
        if missing := sorted(set(range(int(count))) - numbers):
            raise InputError(f"{folder}: split {split!r}: shard {missing[0]} of {count} is missing: fetch it")
    if len(found) == 1 and not _SPLITS & set(found):
        found = {"train": next(iter(found.values()))}
    return kind, found


def _split_of(file: Path) -> str:
    return file.stem if file.stem in _SPLITS else "train"


def _is_array(file: Path) -> bool:
    with file.open("rb") as start:
        return start.read(64).lstrip().startswith(b"[")


def _load(source: str, path: Path, kind: str, files: dict[str, list[str]]) -> dict[str, Table]:
    import datasets
    import pyarrow
    from datasets import config as datasets_config

    datasets.disable_progress_bars()
    datasets_config.HF_UPDATE_DOWNLOAD_COUNTS = False  # else reading a local file asks the hub first
    name, _, subset = source.partition(":") if not path.exists() else (source, "", "")
    try:
        if path.is_dir() and ((path / "dataset_dict.json").is_file() or (path / "state.json").is_file()):
            loaded: Any = datasets.load_from_disk(source)
        elif path.is_file():
            if path.suffix not in (*_KINDS, ".json"):
                raise InputError(f"{source}: no table that can be read: give {', '.join(_KINDS)}, .json or .jsonl")
            loaded = {_split_of(path): _files(path.suffix[1:], [source])}
        elif kind:  # each split for itself: they need not have the same columns
            loaded = {split: _files(kind[1:], some) for split, some in files.items()}
        else:
            loaded = datasets.load_dataset(name, subset or None)
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file or the hub's client raises: of no common class
        cause = error.__cause__ or error.__context__ or error  # what a builder wraps says less
        reason = str(cause).strip().splitlines()[0][:300] if str(cause).strip() else type(cause).__name__
        where = "cannot be read as a table" if path.exists() else "no such folder, and not to be had from the hub"
        raise InputError(f"{source}: {where} ({reason}): check data.path") from None
    pyarrow.default_memory_pool().release_unused()  # what converting parquet to a memory map has left behind
    splits = loaded if isinstance(loaded, dict) else {"train": loaded}
    if odd := [split for split in map(str, splits) if not re.fullmatch(r"\w[\w.-]*", split)]:
        raise InputError(f"{source}: {odd[0]!r}: no name for a split, which names files: rename it")
    return {str(split): ArrowTable(f"{source}/{split}", dataset) for split, dataset in splits.items()}


def _files(kind: str, files: list[str]) -> Any:
    import datasets

    if kind == "parquet":
        return _memory_map(files)
    more = {"keep_default_na": False, "na_values": ["", "nan"]} if kind == "csv" else {}  # "NA" is a text
    return datasets.load_dataset(kind, data_files=files, split="train", **more)


def _memory_map(files: list[str]) -> Any:
    """Parquet files as one Arrow file in `datasets`' cache, written once, some rows in memory at a time.

    `datasets` itself reads a local parquet file ahead without bound, and its peak grows with the file.
    """
    import pyarrow
    from datasets import Dataset, Features
    from datasets import config as datasets_config
    from datasets.arrow_writer import ArrowWriter
    from pyarrow.parquet import ParquetFile

    told = [(str(Path(file).resolve()), Path(file).stat().st_size, Path(file).stat().st_mtime_ns) for file in files]
    name = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
    path = Path(datasets_config.HF_DATASETS_CACHE) / "colmrl" / f"{name}.arrow"

    def write(partial: Path) -> None:
        with (
            ParquetFile(files[0]) as first,
            ArrowWriter(path=str(partial), features=Features.from_arrow_schema(first.schema_arrow)) as writer,
        ):
            for file in files:
                with ParquetFile(file, pre_buffer=False) as rows:
                    for batch in rows.iter_batches(batch_size=64):
                        writer.write_table(pyarrow.Table.from_batches([batch]))
            writer.finalize()

    if not path.is_file():
        write_whole(path, write)
    return Dataset.from_file(str(path))


def is_reference(name: str) -> bool:
    """Whether a picture's name means a row of a table."""
    return _REFERENCE.fullmatch(name) is not None


def row_name(reference: str) -> str:
    """What of a reference does not depend on where the data set lies: `split/doc_17.png#at`."""
    match = _REFERENCE.fullmatch(reference)
    assert match
    return reference[match.start("split") :]


def check_reference(name: str, root: Path) -> str:
    """The reference, its data set found under `root` or by its own name; an InputError where there is no such row."""
    match = _REFERENCE.fullmatch(name)
    assert match
    source, split, row = match["source"], match["split"], int(match["row"])
    local = root / source
    if climbs(source):
        raise InputError(f"{name}: climbs out of {root}: put the table below it, or name it absolutely")
    if local.exists():
        name = absolute(local) + name[len(source) :]
        source = absolute(local)
    tables = open_tables(source)
    if split not in tables:
        raise InputError(f"{name}: no split {split!r}: {source} has {', '.join(tables)}")
    if row >= len(tables[split]):
        raise InputError(f"{name}: no row {row}: {source}/{split} has {len(tables[split])}, counted from 0")
    return name


def picture_of(reference: str) -> tuple[bytes | None, str | None]:
    """The encoded picture, or the path of its file, that a reference to a row means."""
    match = _REFERENCE.fullmatch(reference)
    assert match
    tables = open_tables(match["source"])
    if match["split"] not in tables or int(match["row"]) >= len(tables[match["split"]]):
        raise InputError(f"{reference}: no such row: the data set has changed: read it anew")
    row = tables[match["split"]].row(int(match["row"]))
    found: Any = row.values
    if match["at"] is None:
        found = next((value for value in row.values.values() if is_picture(value)), None)
    for step in match["at"].split("/") if match["at"] else ():
        found = found[int(step)] if isinstance(found, list) else found.get(step)
    if not is_picture(found):
        raise InputError(f"{reference}: no picture there: the row has {', '.join(row.values)}")
    if not found["bytes"] and climbs(found["path"]):
        raise InputError(f"{reference}: {found['path']!r} climbs out of its folder: store the picture's bytes")
    return found["bytes"], found["path"]


def is_picture(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a cell holds a picture as `datasets` stores it: its bytes, or its path."""
    return isinstance(value, dict) and set(value) == {"bytes", "path"} and any(value.values())
