"""Where a collection is: `PLACE[?FIELD=VALUE&…][#COLLECTION]`, PLACE a folder or http(s)://host:port.

`http://10.0.0.5:6333?meta.book=atlas#pages` is the documents of collection `pages` whose payload says so.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from colmrl.errors import InputError

COLLECTION = "documents"
ABOUT = "collection.json"  # in the folder of a collection in this process
Values = tuple[str | int | bool, ...]
Where = dict[str, Values]  # field of the payload, meta.book → any of these values

_NAME = re.compile(r"\w[\w.-]{0,199}")
_HOST = re.compile(r"[\w.-]+:\d+")


@dataclass(frozen=True)
class Address:
    """`place`: a folder, or a server's URL; `where`: the documents that are meant (empty: all)."""

    place: str
    collection: str = COLLECTION
    where: Where = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, collection: str | None = None) -> "Address":
        """`collection`: named beside the address."""
        place, _, named = text.partition("#")
        place, _, asked = place.partition("?")
        if named and collection and named != collection:
            raise InputError(f"{text}: names collection {named!r}, and --collection {collection!r}: name one of them")
        address = cls(place, named or collection or COLLECTION, _where(text, asked))
        if not _NAME.fullmatch(address.collection):
            raise InputError(f"collection {address.collection!r}: not a name: take letters, digits, - and _")
        _check_place(place)
        return address

    @property
    def remote(self) -> bool:
        return "://" in self.place

    @property
    def folder(self) -> Path:
        """Of the collection, where it is not remote."""
        return Path(self.place) / self.collection

    def __str__(self) -> str:
        return f"{self.place}#{self.collection}"

    def all(self) -> "Address":
        return replace(self, where={})


def is_database(text: str) -> bool:
    """Whether a search is meant to ask a database, not an index of colmrl index."""
    place = text.partition("#")[0].partition("?")[0]
    named = "://" in text or "#" in text or "?" in text or bool(_HOST.fullmatch(text))
    return named or any(Path(place).glob(f"*/{ABOUT}"))


def _check_place(place: str) -> None:
    if not place:
        raise InputError("the database's address is empty: give a folder, or http://HOST:6333")
    if _HOST.fullmatch(place) and not Path(place).exists():
        raise InputError(f"{place}: a folder, or a server? For a server give http://{place} (or https://)")
    if "://" not in place:
        return
    parts = urlsplit(place)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{place}: not a Qdrant server's address: give http(s)://HOST:6333, or a folder")
    if parts.username or parts.password:
        raise InputError(f"{parts.hostname}: a secret in the address: give it as --token, or in QDRANT_API_KEY")


def _where(text: str, asked: str) -> Where:
    pairs = parse_qsl(asked, keep_blank_values=True)
    if asked and (not pairs or any(not name or not value for name, value in pairs)):
        raise InputError(f"{text}: ?{asked}: not FIELD=VALUE: write e.g. ?meta.book=atlas")
    found: Where = {}
    for name, value in pairs:
        both = (value, int(value)) if re.fullmatch(r"-?\d{1,18}", value) else (value,)
        found[name] = found.get(name, ()) + both
    return found
