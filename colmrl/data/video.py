"""Frames of a video, decoded with PyAV.

Frame i of n is what is shown at the centre of the i-th of n equal parts of the video's time, start + (i + ½)·T/n, where
T goes from the first frame to the end of the last. Of a video with fewer frames than n, frames come more than once.
"""

import functools
import hashlib
import logging
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from colmrl.errors import InputError

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv"})
_VIDEOS_KEPT = 2  # a process keeps the frames of this many; the frames of one video are asked for one after another
_QUARTER_TURNS = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}
_CUT_SHORT = 0.9  # a video that has less than this part of the time that its header promises is spoken of


def frame_references(path: str, n: int) -> tuple[str, ...]:
    """`n` frames of a video, in order of time, as references to pictures (see `media`)."""
    if n < 1:
        raise InputError(f"{path}: {n} frames asked for: ask for at least one")
    return tuple(f"{path}#frame={index}/{n}" for index in range(n))


def parse_reference(reference: str) -> tuple[str, int, int] | None:
    """(path, index, n) of `path#frame=index/n`, None for any other reference."""
    match = re.fullmatch(r"(.+)#frame=(\d{1,9})/(\d{1,9})", reference, re.DOTALL)
    if match is None:
        return None
    path, index, n = match[1], int(match[2]), int(match[3])
    if index >= n:
        raise InputError(f"{reference}: there is no frame {index} of {n}: count from 0 to {n - 1}")
    return path, index, n


def read_frame(path: str, index: int, n: int) -> Image.Image:
    """Frame `index` of `n`, upright, in RGB; a video that cannot be read is an InputError."""
    return _frames(path, n, *_version(path))[index].copy()


def frame_size(path: str) -> tuple[int, int]:
    """(width, height) of a video's frames, upright; one frame is decoded."""
    return _size(path, *_version(path))


def digest(path: str) -> str:
    """sha256 of the file in hex."""
    return _digest(path, *_version(path))


def checked(path: str) -> os.stat_result:
    """The file's metadata; an InputError where there is no such file, or an empty one."""
    file = Path(path)
    if "\0" in path or not file.is_file():
        raise InputError(f"{path}: no such video: check the path")
    status = file.stat()
    if status.st_size == 0:
        raise _unreadable(path, "an empty file")
    return status


def _version(path: str) -> tuple[int, int]:
    """Tells apart what a path held at different times."""
    status = checked(path)
    return status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=1024)
def _digest(path: str, size: int, changed_ns: int) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from None


@functools.lru_cache(maxsize=1024)
def _size(path: str, size: int, changed_ns: int) -> tuple[int, int]:
    with _opened(path) as (container, stream):
        for frame in _decoded(container, stream):
            return _upright(frame).size
    raise _unreadable(path, "no frame can be decoded")


@functools.lru_cache(maxsize=_VIDEOS_KEPT)
def _frames(path: str, n: int, size: int, changed_ns: int) -> tuple[Image.Image, ...]:
    times = _times(path)
    frames = _frames_by_number(path, n) if times is None else _frames_by_time(path, n, times)
    if not frames:
        raise _unreadable(path, "no frame can be decoded")
    return frames


def _unreadable(path: str, reason: object) -> InputError:
    return InputError(f"{path}: not a readable video ({reason}): replace it or take its record out")


@contextmanager
def _opened(path: str) -> Iterator[tuple[Any, Any]]:
    """The container and its first stream of moving pictures; what PyAV refuses is an InputError."""
    try:
        import av
    except ImportError:
        raise InputError(f"{path}: a video, and PyAV, which reads them, is not installed: pip install av") from None
    from av.error import FFmpegError
    from av.stream import Disposition

    try:
        # Files only: a playlist under a video's name must not reach into the network.
        with av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
            moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
            if not moving:
                raise InputError(f"{path}: has no video stream: replace it or take its record out")
            yield container, moving[0]
    except (FFmpegError, OSError, UnicodeEncodeError) as error:
        raise _unreadable(path, getattr(error, "strerror", None) or error) from None


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """The stream's packets as far as they can be read: a file that was cut ends where it was cut."""
    from av.error import FFmpegError

    try:
        yield from container.demux(stream)
    except FFmpegError as error:
        _say_once(
            f"{container.name.removeprefix('file:')}: broken off ({error.strerror}): frames are taken from before"
        )


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Frames from where the container stands, without those that are damaged."""
    from av.error import FFmpegError

    for packet in _packets(container, stream):
        try:
            yield from packet.decode()
        except FFmpegError as error:
            name = container.name.removeprefix("file:")
            _say_once(f"{name}: has damaged frames ({error.strerror}): those before them are taken")


def _times(path: str) -> tuple[list[int], list[int], int] | None:
    """(when each frame is shown, which of these can be decoded from, the end), sorted, in the stream's time unit.

    Taken from the packets, since what a header says of time is often missing or wrong; nothing is decoded. None where
    they do not tell: a bare stream has no times, and AVI has those of decoding.
    """
    with _opened(path) as (container, stream):
        real = (packet for packet in _packets(container, stream) if packet.size and not packet.is_discard)
        packets = [(packet.pts, packet.duration or 0, packet.is_keyframe) for packet in real]
        if "avi" in container.format.name or not packets or any(pts is None for pts, _, _ in packets):
            return None
        shown = sorted({pts for pts, _, _ in packets})
        keys = sorted({pts for pts, _, is_key in packets if is_key})
        gap = (shown[-1] - shown[0]) // (len(shown) - 1) if len(shown) > 1 else 1
        last_pts, last_duration, _ = max(packets)
        end = last_pts + (last_duration or gap)
        unit = stream.time_base
        promised = float(stream.duration * unit if stream.duration and unit else (container.duration or 0) / 1_000_000)
        there = float((end - shown[0]) * (unit or 0))
        if there < _CUT_SHORT * promised:
            _say_once(f"{path}: has {there:.1f} of the {promised:.1f} s that it promises: frames are taken from these")
        return shown, keys, end


@functools.lru_cache(maxsize=1024)  # a process says it once, not every epoch
def _say_once(message: str) -> None:
    log.warning(message)


def _frames_by_time(path: str, n: int, times: tuple[list[int], list[int], int]) -> tuple[Image.Image, ...]:
    shown, keys, end = times
    span = end - shown[0]
    targets = [shown[0] + (2 * i + 1) * span // (2 * n) for i in range(n)]
    wanted = [shown[bisect_right(shown, target) - 1] for target in targets]
    groups: dict[int | None, list[int]] = {}  # where decoding begins → what is wanted from there on
    for time in sorted(set(wanted)):
        place = bisect_right(keys, time) - 1
        groups.setdefault(keys[place] if place >= 0 else None, []).append(time)
    found: dict[int, Image.Image] = {}
    for key, group in groups.items():
        found |= _pick(path, group, key) or _pick(path, group, None)
    if not found:
        return ()
    before = sorted(found)  # a damaged frame is replaced by the one before it
    return tuple(found[before[max(0, bisect_right(before, time) - 1)]] for time in wanted)


def _pick(path: str, wanted: Sequence[int], start: int | None) -> dict[int, Image.Image]:
    """The frames that are shown at the `wanted` times, decoded from the key frame at `start` (None: from the first).

    Empty where the container could not go to `start`, which not all can, but came out behind what is wanted.
    """
    from av.error import FFmpegError

    with _opened(path) as (container, stream):
        if start is not None:
            try:
                container.seek(start, stream=stream)
            except FFmpegError:
                return {}
        found: dict[int, Image.Image] = {}
        last: Any = None
        waiting = list(wanted)
        for frame in _decoded(container, stream):
            while waiting and frame.pts is not None and frame.pts > waiting[0]:
                if last is None:
                    if start is not None:
                        return {}
                    last = frame  # nothing before it can be decoded
                found[waiting.pop(0)] = _upright(last)
            if not waiting:
                break
            last = frame
        if last is not None:
            found |= {time: _upright(last) for time in waiting}
        return found


def _frames_by_number(path: str, n: int) -> tuple[Image.Image, ...]:
    """As `_frames_by_time`, of a video whose frames all take the same time."""
    with _opened(path) as (container, stream):
        count = sum(1 for _ in _decoded(container, stream))
        if count < _CUT_SHORT * stream.frames:
            _say_once(
                f"{path}: has {count} of the {stream.frames} frames that it promises: frames are taken from these"
            )
    wanted = [(2 * i + 1) * count // (2 * n) for i in range(n)]
    with _opened(path) as (container, stream):
        needed = set(wanted)
        found = {i: _upright(f) for i, f in enumerate(_decoded(container, stream)) if i in needed}
    return tuple(found[number] for number in wanted) if count else ()


def _upright(frame: Any) -> Image.Image:
    """The frame in RGB, turned as the container says (degrees, counter-clockwise, as Pillow turns)."""
    picture = frame.to_image()
    turn = _QUARTER_TURNS.get(round(frame.rotation / 90) % 4)
    return picture if turn is None else picture.transpose(turn)
