"""Texts, pictures, dicts of both → queries and documents. What is wrong is said with its place in the list."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from PIL import Image

from colmrl.data.media import Held, is_image_path
from colmrl.data.records import Document, Query
from colmrl.data.tables import is_reference
from colmrl.errors import InputError

Kind = Literal["queries", "documents"]
QueryInput = str | Path | Image.Image | Mapping[str, Any] | Query
DocumentInput = str | Path | Image.Image | Mapping[str, Any] | Document

R = TypeVar("R", Query, Document)
_FIELDS = ("text", "title", "image", "images", "id")


def as_queries(given: QueryInput | Sequence[QueryInput]) -> tuple[list[Query], bool]:
    """The queries, and whether one was given rather than a list. A text is a text, also one that names a picture."""
    some, alone = _listed(given)
    return [_record(Query, one, f"queries[{place}]") for place, one in enumerate(some)], alone


def as_documents(given: DocumentInput | Sequence[DocumentInput]) -> tuple[list[Document], bool]:
    """The documents, and whether one was given. A text that ends as picture files do is the path of one, as in triples;
    {"text": …} is always a text.
    """
    some, alone = _listed(given)
    return [_record(Document, one, f"documents[{place}]") for place, one in enumerate(some)], alone


def _listed(given: Any) -> tuple[Sequence[Any], bool]:
    if isinstance(given, str | Path | Image.Image | Mapping | Query | Document):
        return [given], True
    try:
        return list(given), False
    except TypeError:
        raise InputError(f"{type(given).__name__}: {_WRONG}") from None


_WRONG = "not a text, picture, path, dict or record, nor a list of them: give one of these"


def _record(kind: type[R], given: Any, name: str) -> R:
    if isinstance(given, kind):
        return given
    match given:
        case Mapping():
            return _of_fields(kind, given, name)
        case Image.Image() | Path():
            return kind(name, images=(_picture(given, name),))
        case str() if kind is Document and is_image_path(given):
            if not Path(given).is_file() and not is_reference(given):
                remedy = "mend the path, or give {'text': …} where it is a text"
                raise InputError(f"{name}: {given!r}: ends as a picture does, and there is no such file: {remedy}")
            return kind(name, images=(given,))
        case str():
            return kind(name, given)
    raise InputError(f"{name}: {type(given).__name__}: {_WRONG}")


def _of_fields(kind: type[R], given: Mapping[str, Any], name: str) -> R:
    for key in given:
        if key not in _FIELDS or (key == "title" and kind is Query):
            near = difflib.get_close_matches(str(key), _FIELDS, 1)
            remedy = f"did you mean {near[0]!r}?" if near and near[0] != key else f"give {', '.join(_FIELDS)}"
            raise InputError(f"{name}: {key!r}: no such field of {_SAID[kind]}: {remedy}")
    images = [given[key] for key in ("image", "images") if given.get(key) is not None]
    pictures = [one for some in images for one in (some if isinstance(some, list | tuple) else [some])]
    told: dict[str, Any] = {key: str(given[key]) for key in ("text", "title") if given.get(key) is not None}
    return kind(str(given.get("id", name)), images=tuple(_picture(one, name) for one in pictures), **told)


_SAID = {Query: "a query", Document: "a document"}


def _picture(given: Any, name: str) -> str:
    if isinstance(given, Image.Image):
        return Held.of(given, f"a picture of {given.width}×{given.height} pixels")
    if isinstance(given, str | Path):
        return given if isinstance(given, str) else str(given)
    raise InputError(f"{name}: image: {type(given).__name__}: not a picture: give a path or a PIL.Image")
