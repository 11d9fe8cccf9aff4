"""The rows of an mteb data set (columns id, title, text, image; mteb 2.26) as our records, read when asked for.

A document is shown to the model as the BEIR reader shows it, a query with mteb's instruction after it; of a task that
asks for pictures alone, texts are left out, and the other way round. Pictures are references: the file that the data
set names, or a file of the bytes that it holds, written when the row is first read and named by them.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from datasets import Dataset, Image, List
from PIL import Image as Pillow

from colmrl.data.records import Document, Query, Records
from colmrl.errors import InputError
from colmrl.files import write_whole

T = TypeVar("T", Document, Query)


def documents_of(corpus: Dataset, modalities: Sequence[str], pictures: Path) -> Records[Document]:
    """`modalities`: what the task shows of them; `pictures`: the folder of files of pictures held as bytes."""
    rows = _rows(corpus, ("id", "title", "text", "body", "image"), modalities)

    def read(row: int) -> Document:
        found = rows[row]
        text = found.get("body") or found.get("text") or ""  # mteb's loaders put title and text into `text`
        return Document(ids[row], text, found.get("title") or "", _images(found, pictures))

    ids = _ids(corpus)
    return _checked(Records(ids, read))


def queries_of(queries: Dataset, modalities: Sequence[str], pictures: Path) -> Records[Query]:
    """The same of queries."""
    rows = _rows(queries, ("id", "text", "instruction", "image"), modalities)

    def read(row: int) -> Query:
        found = rows[row]
        return Query(ids[row], _asked(found.get("text") or "", found.get("instruction")), _images(found, pictures))

    ids = _ids(queries)
    return _checked(Records(ids, read))


def _rows(dataset: Dataset, names: Sequence[str], modalities: Sequence[str]) -> Dataset:
    """The columns that the model may see, pictures as they are stored."""
    hidden = {"text", "image"}.difference(modalities)
    hidden |= {"title", "body", "instruction"} if "text" in hidden else set()
    kept = [name for name in names if name in dataset.column_names and name not in hidden]
    rows = dataset.with_format(None).select_columns(kept)
    feature = rows.features.get("image")
    if isinstance(feature, List):
        return rows.cast_column("image", List(Image(decode=False)))
    return rows.cast_column("image", Image(decode=False)) if isinstance(feature, Image) else rows


def _ids(dataset: Dataset) -> list[str]:
    """Rows of tasks that are no retrieval have no ids: their numbers."""
    return (
        [str(name) for name in dataset["id"]] if "id" in dataset.column_names else list(map(str, range(len(dataset))))
    )


def _checked(records: Records[T]) -> Records[T]:
    if len(records.position) < len(records):
        name = next(name for row, name in enumerate(records.ids) if records.position[name] != row)
        raise InputError(f"the task's data: id {name!r} is there twice: nothing can be judged by it: mend the data")
    return records


def _asked(text: str | list[Any], instruction: str | None) -> str:
    """A query as mteb words it: instruction after it; of a conversation the turns, instruction before them."""
    if isinstance(text, str):
        return f"{text} {instruction}" if instruction is not None else text
    turns = [turn if isinstance(turn, str) else f"{turn['role']}: {turn['content']}" for turn in text]
    return " ".join([instruction, "; ".join(turns)] if instruction is not None else ["; ".join(turns)])


def _images(row: Mapping[str, Any], pictures: Path) -> tuple[str, ...]:
    found = row.get("image")
    stored = found if isinstance(found, list) else [found]
    return tuple(_reference(one, pictures) for one in stored if one is not None)


def _reference(stored: Any, pictures: Path) -> str:
    """Of {"bytes", "path"}, or of a picture that the data set holds decoded."""
    if isinstance(stored, Pillow.Image):
        held = io.BytesIO()
        stored.save(held, "PNG")
        stored = {"bytes": held.getvalue(), "path": None}
    held = stored["bytes"]
    if held is None:
        return str(stored["path"])
    name = hashlib.sha256(held).hexdigest()[:32]
    path = pictures / name[:2] / name
    if not path.is_file():
        write_whole(path, lambda partial: partial.write_bytes(held))
    return str(path)
