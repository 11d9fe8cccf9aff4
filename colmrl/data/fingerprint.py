"""Whether records are still the ones that something was made from."""

import hashlib
import json
from collections.abc import Sequence

from colmrl.data.media import stamp
from colmrl.data.records import Document, Query


def content_hash(records: Sequence[Document] | Sequence[Query]) -> str:
    """Of ids, texts, and the names and sizes of pictures: whether what was encoded is still what is there."""
    digest = hashlib.sha256()
    for record in records:
        text = record.body if isinstance(record, Document) else record.text
        images = [stamp(image) for image in record.images]
        digest.update(json.dumps([record.id, text, images]).encode())
    return digest.hexdigest()[:32]
