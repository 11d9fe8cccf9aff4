"""Pictures that were sent to be looked for: checked, and kept for as long as the server runs, the last few of them."""

import hashlib
import io
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from colmrl.data.media import open_image
from colmrl.errors import InputError

MAX_BYTES = 16 << 20
MAX_PIXELS = 50_000_000  # a header may promise more than memory holds
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # of Pillow's some others run programs, or fetch fonts
_KEPT = 32
_NAME = re.compile(r"[0-9a-f]{32}")
_REMEDY = "choose another picture"


class Uploads:
    """A private folder, removed by `close`. A picture's name is the hash of its bytes."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="colmrl-serve-")
        self._kept, self._names = kept, dict[str, None]()  # the last used last

    def add(self, content: bytes) -> str:
        """Its name; InputError where it is no picture, or too large a one."""
        if not content:
            raise InputError(f"picture: empty: {_REMEDY}")
        _check_header(content)
        name = hashlib.sha256(content).hexdigest()[:32]
        path = self._path(name)
        path.write_bytes(content)
        try:
            _named("picture", path, lambda: open_image(str(path)))
        except InputError:
            path.unlink()
            raise
        self._names.pop(name, None)
        self._names[name] = None
        while len(self._names) > self._kept:
            oldest = next(iter(self._names))
            self._path(oldest).unlink()
            del self._names[oldest]
        return name

    def reference(self, name: str) -> str:
        """As a query names it."""
        if name not in self._names:
            raise InputError("picture: is not here any more: choose it again")
        self._names[name] = self._names.pop(name)
        return str(self._path(name))

    def unnamed(self, message: str) -> str:
        """A message without the place where a picture lies."""
        return re.sub(re.escape(self._folder.name) + r"/[0-9a-f]{32}", "picture", message)

    def close(self) -> None:
        self._folder.cleanup()

    def _path(self, name: str) -> Path:
        assert _NAME.fullmatch(name)
        return Path(self._folder.name) / name


def _check_header(content: bytes) -> None:
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        raise InputError(f"picture: too large, more than {MAX_PIXELS:,} pixels: scale it down") from None
    except Exception:  # the decoders raise whatever a broken file makes them trip over
        known = ", ".join(FORMATS)
        raise InputError(f"picture: not a readable picture ({known}): {_REMEDY}") from None
    if width * height > MAX_PIXELS:
        raise InputError(f"picture: too large, {width:,} × {height:,} pixels, more than {MAX_PIXELS:,}: scale it down")


def _named(name: str, path: Path, read: Callable[[], object]) -> None:
    """What is wrong with the file at `path`, said of `name`."""
    try:
        read()
    except InputError as error:
        said = str(error).rpartition(": ")[0].replace(str(path), name)
        raise InputError(f"{said}: {_REMEDY}") from None
