"""Pictures, each named by a reference: opened upright in RGB, measured, told apart.

A reference is the path of a file, or `VIDEO#frame=2/8`, the third of eight frames spread over a video (see `video`), or
`SOURCE/SPLIT/doc_17.png#AT`, which lies in row 17 of a table (see `tables`), or a `Held` picture itself.
"""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from colmrl.data import tables, video
from colmrl.errors import InputError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
MAX_IMAGE_PIXELS = 178_956_970  # a larger one is refused, as Pillow does: half a gigabyte in RGB

_TURNS = {  # EXIF orientation → what makes it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDES_SWAPPED = {_TURNS[orientation] for orientation in (5, 6, 7, 8)}
_ORIENTATION = 0x0112  # EXIF tag
_PHOTOMETRIC = 262  # TIFF tag; 0: zero is white
_CHUNK_BYTES = 1 << 20


class Held(str):
    """A reference that holds its picture, upright in RGB; as a text it is what messages call it."""

    picture: Image.Image

    @classmethod
    def of(cls, picture: Image.Image, name: str) -> "Held":
        """Any picture of Pillow's, also one that was opened and not read yet."""
        with _located(name, size=1):
            picture.load()
            held = cls(name)
            held.picture = _rgb(ImageOps.exif_transpose(picture))
            return held


def _source(reference: str) -> "_File | _Frame | _InMemory":
    """The one place that tells kinds of references apart."""
    if isinstance(reference, Held):
        return _InMemory(reference)
    frame = video.parse_reference(reference)
    if frame is not None:
        return _Frame(*frame)
    if tables.is_reference(reference) and not Path(reference).is_file():
        held, path = tables.picture_of(reference)
        return _File(reference, held) if held is not None else _File(path or "")
    return _File(reference)


def open_image(reference: str, max_pixels: int | None = None) -> Image.Image:
    """The picture as RGB, turned as its EXIF says, transparency laid on white, the first of several frames.

    `max_pixels`: how many the caller will use. A JPEG may then be decoded at 1/2, 1/4 or 1/8 of its size, never with
    fewer pixels than that; everything else comes whole. What cannot be opened right is an InputError.
    """
    return _source(reference).open(max_pixels)


def picture_size(reference: str) -> tuple[int, int]:
    """(width, height) of the upright picture; a file's pixels are not decoded."""
    return _source(reference).size()


def picture_bytes(reference: str) -> bytes:
    """The encoded picture as it lies in its file; for a frame, the digest of its video and which frame it is."""
    return b"".join(_source(reference).chunks())


def content_hash(reference: str) -> str:
    """sha256 of `picture_bytes` in hex, without holding the file in memory."""
    digest = hashlib.sha256()
    for chunk in _source(reference).chunks():
        digest.update(chunk)
    return digest.hexdigest()


def stamp(reference: str) -> tuple[str, int]:
    """A cheap identity, wherever the folder lies: the file's name (and which frame) and its size in bytes.

    Of a row of a table: which row, and how many bytes its picture has.
    """
    return _source(reference).stamp()


def is_image_path(text: str) -> bool:
    """Whether a triple's `pos` or `neg` names a picture rather than being text."""
    return "\n" not in text and Path(text).suffix.lower() in IMAGE_SUFFIXES


def is_video_path(text: str) -> bool:
    """Whether a text names a video file."""
    return "\n" not in text and Path(text).suffix.lower() in video.VIDEO_SUFFIXES


@dataclass(frozen=True)
class _File:
    """`held`: what the file would hold, where it lies in a table; `path` is then what messages call it."""

    path: str
    held: bytes | None = None

    def open(self, max_pixels: int | None) -> Image.Image:
        with _opened(self.path, self.held) as image, self._file() as file:
            turn = _turn(image, file)
            if max_pixels is not None:
                _draft(image, max_pixels)
            image.load()
            rgb = _rgb(image)
            return rgb if turn is None else rgb.transpose(turn)

    def size(self) -> tuple[int, int]:
        with _opened(self.path, self.held) as image, self._file() as file:
            width, height = image.size
            return (height, width) if _turn(image, file) in _SIDES_SWAPPED else (width, height)

    def chunks(self) -> Iterator[bytes]:
        with _located(self.path), self._file() as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

    def stamp(self) -> tuple[str, int]:
        if self.held is not None:
            return tables.row_name(self.path), len(self.held)
        with _located(self.path):
            return Path(self.path).name, Path(self.path).stat().st_size

    def _file(self) -> io.BufferedIOBase:
        return Path(self.path).open("rb") if self.held is None else io.BytesIO(self.held)


@dataclass(frozen=True)
class _Frame:
    path: str
    index: int
    n: int

    def open(self, max_pixels: int | None) -> Image.Image:
        return video.read_frame(self.path, self.index, self.n)

    def size(self) -> tuple[int, int]:
        return video.frame_size(self.path)

    def chunks(self) -> Iterator[bytes]:
        yield f"{video.digest(self.path)}#frame={self.index}/{self.n}".encode()

    def stamp(self) -> tuple[str, int]:
        return f"{Path(self.path).name}#frame={self.index}/{self.n}", video.checked(self.path).st_size


@dataclass(frozen=True)
class _InMemory:
    held: Held

    def open(self, max_pixels: int | None) -> Image.Image:
        return self.held.picture.copy()

    def size(self) -> tuple[int, int]:
        return self.held.picture.size

    def chunks(self) -> Iterator[bytes]:
        yield f"{self.held.picture.size}".encode()
        yield self.held.picture.tobytes()

    def stamp(self) -> tuple[str, int]:
        pixels = self.held.picture.tobytes()
        return hashlib.sha256(pixels).hexdigest(), len(pixels)


@contextmanager
def _located(path: str, size: int = 0) -> Iterator[None]:
    """What goes wrong with the file is an InputError that names it."""
    try:
        yield
    except InputError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no such image: check the path") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder, not an image: name a file in it") from None
    except PermissionError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): make it readable") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path}: too large ({error}): scale it down, or take its record out") from None
    except UnidentifiedImageError:
        problem = "of no known format" if size or Path(path).stat().st_size else "an empty file"
        raise InputError(f"{path}: not a readable image ({problem}): replace it or take its record out") from None
    except Exception as error:  # the decoders raise whatever a broken file makes them trip over
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: not a readable image ({reason}): replace it or take its record out") from None


@contextmanager
def _opened(path: str, held: bytes | None) -> Iterator[ImageFile.ImageFile]:
    """The file with its header read; what is not an image, or too large, is refused."""
    if Image.MAX_IMAGE_PIXELS is not None and Image.MAX_IMAGE_PIXELS < MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = MAX_IMAGE_PIXELS  # or Pillow warns from half of that on; one assignment, once
    file = path if held is None else io.BytesIO(held)
    with _located(path, len(held or b"")), Image.open(file) as image:
        width, height = image.size
        if width * height > MAX_IMAGE_PIXELS:
            size = f"{width} × {height} pixels, more than {MAX_IMAGE_PIXELS}"
            raise InputError(f"{path}: too large ({size}): scale it down, or take its record out")
        yield image


def _turn(image: ImageFile.ImageFile, file: io.BufferedIOBase) -> Image.Transpose | None:
    """What makes the picture upright, from its header alone; None as well where its EXIF is broken."""
    if image.format == "TIFF":
        return None  # Pillow itself turns it, and gives the size turned
    try:
        if image.format == "PNG" and "exif" not in image.info:
            image.info["exif"] = _late_exif(file)
        # Not image.getexif(): for PNG that decodes the pixels.
        return _TURNS.get(Image.Image.getexif(image).get(_ORIENTATION, 1))
    except Exception:  # as many kinds as there are ways to break EXIF; the picture itself may be well
        return None


def _late_exif(file: io.BufferedIOBase) -> bytes | None:
    """A PNG's eXIf chunk, which may stand after the pixels."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4]), head[4:]
        if kind == b"eXIf":
            return b"Exif\0\0" + file.read(length)
        file.seek(length + 4, 1)
    return None


def _draft(image: ImageFile.ImageFile, max_pixels: int) -> None:
    """Have a JPEG decoded smaller, by its DCT, where that leaves at least `max_pixels`; others are left alone."""
    width, height = image.size
    for scale in (8, 4, 2):
        if -(-width // scale) * -(-height // scale) >= max_pixels:
            image.draft(None, (max(1, width // scale), max(1, height // scale)))
            return


def _rgb(image: Image.Image) -> Image.Image:
    flat = _grey(image) if image.mode.startswith(("I", "F")) else image
    if not flat.has_transparency_data:
        return flat.convert("RGB")
    layer = flat.convert("RGBA")
    white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layer).convert("RGB")


def _grey(image: Image.Image) -> Image.Image:
    """A deep grey picture in 8 bits, scaled, not clipped.

    White is 65535 for 16 bits. Whole numbers of 32 bits and floats do not say what white is: it is the first of
    255, 65535 (floats: 1) that no value exceeds, and failing that the values are stretched from lowest to highest.
    """
    import numpy as np

    values = np.asarray(image).astype(np.float32)
    clear = values == image.info["transparency"] if "transparency" in image.info else None
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    values = np.nan_to_num(values, nan=low, neginf=low, posinf=high)
    whites = (65535,) if image.mode.startswith("I;16") else (1,) if image.mode == "F" else (255, 65535)
    white = next((white for white in whites if low >= 0 and high <= white), None)
    if white is not None:
        values *= 255 / white
    elif high > low:
        values = (values - low) * (255 / (high - low))
    levels = values.clip(0, 255).round().astype(np.uint8)
    if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
        levels = 255 - levels
    if clear is not None:
        levels[clear] = 255  # laid on white
    return Image.fromarray(levels)
