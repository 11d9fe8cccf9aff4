"""Pictures as files, rows as parquet: what every writer of a format needs."""

import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colmrl.data.media import open_image, picture_bytes, picture_size
from colmrl.files import absolute, write_whole

JPEG_QUALITY = 90


@dataclass(frozen=True)
class Pictures:
    """Pictures as files: where they lie already, or written under `folder`, made smaller beyond `max_pixels`."""

    folder: Path
    max_pixels: int | None = None

    def path(self, reference: str) -> str:
        """A path relative to the folder's parent for what is written, an absolute one for what lies elsewhere."""
        small = self.max_pixels is not None and _area(reference) > self.max_pixels
        if Path(reference).is_file() and not small:
            return absolute(reference)
        name = hashlib.sha256(f"{reference} {self.max_pixels if small else ''}".encode()).hexdigest()[:24]
        held = b"" if small else encoded(reference)
        path = self.folder / f"{name}.{'jpg' if small else _suffix(held)}"
        if not path.is_file():  # an earlier, interrupted run may have written it
            write_whole(path, lambda partial: partial.write_bytes(held or self._smaller(reference)))
        return str(path.relative_to(self.folder.parent))

    def _smaller(self, reference: str) -> bytes:
        image, held = open_image(reference, self.max_pixels), io.BytesIO()
        ratio = ((self.max_pixels or 0) / (image.width * image.height)) ** 0.5
        size = max(1, int(image.width * ratio)), max(1, int(image.height * ratio))
        (image.resize(size) if ratio < 1 else image).save(held, "JPEG", quality=JPEG_QUALITY)
        return held.getvalue()


def _suffix(held: bytes) -> str:
    known = {b"\xff\xd8": "jpg", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp", b"II*\0": "tif", b"MM\0*": "tif"}
    return next((suffix for start, suffix in known.items() if held.startswith(start)), "png")


def encoded(reference: str) -> bytes:
    """The picture's own bytes; a frame of a video as PNG."""
    if "#frame=" not in reference:
        return picture_bytes(reference)
    held = io.BytesIO()
    open_image(reference).save(held, "PNG")
    return held.getvalue()


def write_parquet(path: Path, rows: Iterable[Mapping[str, Any]], features: Mapping[str, Any]) -> int:
    """Rows → parquet with the given `datasets` features, some rows in memory at a time; returns their number."""
    from datasets import Features
    from datasets.arrow_writer import ParquetWriter

    count = 0

    def write(partial: Path) -> None:
        nonlocal count
        with ParquetWriter(features=Features(features), path=str(partial), writer_batch_size=64) as writer:
            for row in rows:
                writer.write(dict(row))
                count += 1
            writer.finalize()

    write_whole(path, write)
    return count


def _area(reference: str) -> int:
    width, height = picture_size(reference)
    return width * height
