"""Files that are there are whole: written under a temporary name, fsynced, renamed; and by one process at a time."""

import contextlib
import errno
import fcntl
import functools
import hashlib
import io
import json
import logging
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec

from colmrl.errors import InputError

log = logging.getLogger(__name__)
P = ParamSpec("P")
MAX_LINE_BYTES = 64 << 20  # a longer line is no record: memory is not spent on it
_HELD = set[Path]()  # locks of this process: POSIX's are its own, whoever in it asks
DISK_REFUSES = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
_LIBRARIES_SAY = re.compile(  # of the same: safetensors, torch, numpy
    r"Error while serializing: I/O error|PytorchStreamWriter failed|unexpected pos \d+ vs \d+"
    r"|\d+ requested and \d+ written"
)
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


@contextlib.contextmanager
def locked(place: Path, beside: bool = False, remedy: str = "choose another --out") -> Iterator[None]:
    """Have a folder to oneself: PLACE/.lock, or (`beside`, of a file, or of what is not there yet) .NAME.lock. An
    InputError where another process has it.

    A POSIX lock: it is let go however its process ends, forked workers do not keep it, and NFS servers know it.
    """
    path = place.with_name(f".{place.name}.lock") if beside else place / ".lock"
    path, new = path.absolute(), [folder for folder in path.parents if not folder.exists()]
    if path in _HELD:
        raise _taken(place, "this process", remedy)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(path, place, remedy)
    except OSError as error:
        raise InputError(f"{place}: cannot be written ({error.strerror}): mend it, or {remedy}") from None
    _HELD.add(path)
    try:
        yield
    finally:
        _HELD.discard(path)
        path.unlink(missing_ok=True)  # while it is held: whoever opened it sees that it has gone
        os.close(descriptor)
        with contextlib.suppress(OSError):  # nothing was written after all
            for folder in new:
                folder.rmdir()


def _lock(path: Path, place: Path, remedy: str) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return descriptor
        except (BlockingIOError, PermissionError):
            holder = os.read(descriptor, 200).decode(errors="replace")
            os.close(descriptor)
            raise _taken(place, holder or "another process", remedy) from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                os.close(descriptor)
                raise
            log.warning("%s: cannot be locked (%s): see that nothing else writes here", place, error.strerror)
            return descriptor
        os.close(descriptor)  # its holder ended, and removed it, in between


def _taken(place: Path, holder: str, remedy: str) -> InputError:
    return InputError(
        f"{place}: {holder} writes here: wait for it, stop it (a launcher's workers may outlive it), or {remedy}"
    )


def check_room(place: Path, wanted_bytes: int) -> None:
    """Raise an InputError where the disk of a place, which need not be there yet, has not so much room left."""
    there = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < wanted_bytes:
        raise InputError(
            f"{place}: about {wanted_bytes:,} bytes are needed, {free:,} are free: free space, or choose another place"
        )


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """What the disk refuses to take for a place, to us or to safetensors or torch, is an InputError."""
    try:
        yield
    except Exception as error:
        refused = isinstance(error, OSError) and error.errno in DISK_REFUSES
        if not refused and not _LIBRARIES_SAY.search(str(error)):
            raise
        said = (error.strerror if isinstance(error, OSError) else None) or str(error).strip().partition("\n")[0]
        place = Path(getattr(error, "filename", None) or place)
        raise InputError(f"{place}: cannot be written ({said}): free space, or choose another place") from None


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """`write(partial)` writes a file that then takes `path`'s name. What the disk refuses is an InputError."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # two processes may write the same
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path):
            write(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        said = error.strerror or error
        raise InputError(f"{path}: cannot be written ({said}): free space, or choose another place") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


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
        with locked(out, beside=True):
            check_new_folder(out)
            shutil.rmtree(partial, ignore_errors=True)
            try:
                partial.mkdir(parents=True)
            except OSError as error:
                raise InputError(f"{out}: cannot be written ({error.strerror}): choose another place") from None
            try:
                with writing(out):
                    write(partial, *args, **kwargs)
            except InputError:  # there is nothing to go on from
                shutil.rmtree(partial, ignore_errors=True)
                raise
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


def bounded_lines(file: io.BufferedIOBase, path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers, counted from 1; an InputError at one that is
    longer than any record.
    """
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), 1):
        if len(line) > MAX_LINE_BYTES:
            raise InputError(
                f"{path}:{number}: line: longer than {MAX_LINE_BYTES >> 20} MiB: write one record a line, and pictures "
                "as files"
            )
        yield number, line


def read_json(path: Path, remedy: str, keys: Sequence[str] = ()) -> dict[str, Any]:
    """What a file states: an object that has `keys`; an InputError where it is anything else."""
    try:
        stated = json.loads(path.read_bytes())
        if not isinstance(stated, dict):
            raise ValueError(f"a {type(stated).__name__}, not an object")
        if missing := [key for key in keys if key not in stated]:
            raise ValueError(f"no {missing[0]!r}")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): {remedy}") from None
    except (ValueError, RecursionError) as error:  # ValueError: JSON and Unicode errors alike
        raise InputError(f"{path}: cannot be read ({error}): {remedy}") from None
    return stated


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


def climbs(name: str) -> bool:
    """Whether a relative name leads out of the folder that it starts in. Absolute ones, and links, lead where they say:
    whoever wrote them there meant it.
    """
    return not Path(name).is_absolute() and Path(os.path.normpath(name)).parts[:1] == (os.pardir,)


def file_name(name: str) -> bool:
    """Whether an id can be a file's name, and the file lies where it is put."""
    return bool(name) and name not in (os.curdir, os.pardir) and not set(name) & set("/\\\0")


def absolute(path: str | Path) -> str:
    """The absolute path without "..", links left as they are: a link's own suffix tells what it is."""
    return os.path.abspath(path)  # noqa: PTH100


def check_new_folder(folder: Path) -> None:
    """Raise an InputError unless `folder` is absent or an empty folder."""
    if folder.is_file() or (folder.exists() and any(folder.iterdir())):
        raise InputError(f"{folder}: exists and is not empty: choose another --out, or remove it")
