"""Pages of documents as small pictures, made anew from the pixels (no file is ever handed out), the last ones kept."""

import io
import threading
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from colmrl.data.media import open_image
from colmrl.data.records import Document
from colmrl.errors import InputError

Size = Literal["small", "large"]
_SIDE: dict[Size, int] = {"small": 400, "large": 1400}  # pixels that neither side exceeds
_LOSSLESS = 256 * 256  # pixels up to which a PNG is small enough
_KEPT_BYTES = 64 << 20
_OVERSAMPLING = 4


@dataclass(frozen=True)
class Encoded:
    content: bytes
    media_type: str


class Thumbnails:
    """May be asked by several threads."""

    def __init__(self, kept_bytes: int = _KEPT_BYTES) -> None:
        self._kept_bytes, self._held = kept_bytes, 0
        self._known: dict[tuple[int, int, Size], Encoded] = {}  # the last used last
        self._lock = threading.Lock()

    def known(self, row: int, number: int, size: Size) -> Encoded | None:
        with self._lock:
            found = self._known.pop((row, number, size), None)
            if found:
                self._known[row, number, size] = found
        return found

    def make(self, row: int, document: Document, number: int, size: Size) -> Encoded:
        """Of the document's picture `number`, which it must have. What is wrong is said without the file's place."""
        try:
            made = small(document.images[number], size)
        except InputError:
            said = "cannot be shown: check the data"
            raise InputError(f"document {document.id!r}: picture {number}: {said}") from None
        with self._lock:
            self._held += len(made.content) - len(self._known.get((row, number, size), Encoded(b"", "")).content)
            self._known[row, number, size] = made
            while self._held > self._kept_bytes:
                self._held -= len(self._known.pop(next(iter(self._known))).content)
        return made


def small(reference: str, size: Size) -> Encoded:
    """A picture scaled down."""
    side = _SIDE[size]
    page = open_image(reference, _OVERSAMPLING * side * side)
    page.thumbnail((side, side), Image.Resampling.LANCZOS)
    return encode_png(page) if page.width * page.height <= _LOSSLESS else _encoded(page, "JPEG", quality=85)


def encode_png(picture: Image.Image) -> Encoded:
    return _encoded(picture, "PNG")


def _encoded(picture: Image.Image, kind: Literal["PNG", "JPEG"], **options: int) -> Encoded:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return Encoded(out.getvalue(), f"image/{kind.lower()}")
