"""Files that are there are whole: written under a temporary name, fsynced, renamed."""

import functools
import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, Literal, ParamSpec

from colmrl.errors import InputError

log = logging.getLogger(__name__)
P = ParamSpec("P")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """`write(partial)` writes a file that then takes `path`'s name. What the disk refuses is an InputError."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # two processes may write the same
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        if partial.is_file():
            partial.unlink()
        said = error.strerror or error
        raise InputError(f"{path}: cannot be written ({said}): free space, or choose another place") from None


def write_text(path: Path, text: str) -> None:
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def new_folder(write: Callable[Concatenate[Path, P], object]) -> Callable[Concatenate[str | Path, P], Path]:
    """Have `write(folder, …)` write a folder that appears whole: under a temporary name, then renamed. Called with the
    name that it is to take, which it returns; an InputError where that is there already.
    """

    @functools.wraps(write)
    def run(out: str | Path, *args: P.args, **kwargs: P.kwargs) -> Path:
        out = Path(out)
        check_new_folder(out)
        partial = out.with_name(out.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial, *args, **kwargs)
        partial.rename(out)
        log.info("wrote %s", out)
        return out

    return run


def digest(path: Path, algorithm: Literal["sha256", "blake2b"] = "blake2b") -> str:
    """Of a file's bytes, in hex; BLAKE2b of 16 bytes."""
    with path.open("rb") as file:
        if algorithm == "sha256":
            return hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def whole_lines(path: Path) -> list[bytes]:
    """Of a file that lines are appended to, none where there is no file; one that a kill has torn is cut off it."""
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return whole.splitlines()


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have (too long, with a null byte) is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def absolute(path: str | Path) -> str:
    """The absolute path without "..", links left as they are: a link's own suffix tells what it is."""
    return os.path.abspath(path)  # noqa: PTH100


def check_new_folder(folder: Path) -> None:
    """Raise an InputError unless `folder` is absent or an empty folder."""
    if folder.is_file() or (folder.exists() and any(folder.iterdir())):
        raise InputError(f"{folder}: exists and is not empty: choose another --out, or remove it")
