"""Whether records are still the ones that something was made from."""

import hashlib
import json
from collections.abc import Iterable

from colmrl.data.media import stamp
from colmrl.data.records import Document, Query


def record_hash(record: Document | Query) -> str:
    """32 hex digits of its id, text, and the names and sizes of its pictures."""
    text = record.body if isinstance(record, Document) else record.text
    images = [stamp(image) for image in record.images]
    return hashlib.sha256(json.dumps([record.id, text, images]).encode()).hexdigest()[:32]


def combined(hashes: Iterable[str]) -> str:
    """One hash of many, whatever their order."""
    return f"{sum(int(each, 16) for each in hashes) % (1 << 128):032x}"


def content_hash(records: Iterable[Document | Query]) -> str:
    """Whether what was encoded is still what is there, in any order."""
    return combined(map(record_hash, records))
