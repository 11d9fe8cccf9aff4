"""Pictures of items into one folder, copied or downloaded; each is opened once, to be sure that it is one.

A picture takes its name, <item>.<suffix of its format>, when it is whole. Good ones that are there are kept.
"""

import http.client
import io
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from colmrl.data.media import IMAGE_SUFFIXES, open_image
from colmrl.errors import InputError
from colmrl.files import file_name
from colmrl.progress import track

log = logging.getLogger(__name__)

MAX_BYTES = 64 << 20
USER_AGENT = "colmrl (https://pypi.org/project/colmrl; item pictures for research)"
_HOPELESS = 24  # so many items without an answer, and none with: the network is at fault
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses that another try may change


@dataclass
class Pictures:
    """`paths`: item → path; `problems`: item → why it has none."""

    paths: dict[str, Path] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    kept: int = 0  # of the paths, those that were there already


@dataclass(frozen=True)
class Fetching:
    """How to download. A try that fails for a reason that may pass is repeated after pause_s, 2·pause_s, 4·pause_s …"""

    workers: int = 8
    timeout_s: float = 20.0
    tries: int = 4
    pause_s: float = 1.0


class _Passing(Exception):
    """A failure that another try may change."""


class _Lasting(Exception):
    """A failure that stays."""


def copy_pictures(items: Iterable[str], source: Path, out: Path) -> Pictures:
    """The pictures of `items` that `source` holds as <item>.<suffix>."""
    if not source.is_dir():
        raise InputError(f"{source}: no such folder: name one with pictures <item>.jpg, .png, …")
    items = list(items)
    there = _by_item(source)
    result = _kept(items, out)
    for item in track(items, "pictures", len(items)):
        if item in result.paths:
            continue
        if item not in there:
            result.problems[item] = f"no picture in {source}"
            continue
        try:
            result.paths[item] = _place(item, there[item].read_bytes(), out)
        except (_Lasting, OSError) as error:
            result.problems[item] = f"{there[item]}: {error}"
    return result


def download_pictures(urls: Mapping[str, str], out: Path, how: Fetching | None = None) -> Pictures:
    """The pictures at `urls` (item → address); raises an InputError where nothing answers at all."""
    how = how or Fetching()
    result = _kept(urls, out)
    unanswered = 0
    with ThreadPoolExecutor(how.workers) as pool:
        futures: dict[Future[Path], str] = {
            pool.submit(_fetch, item, url, out, how): item for item, url in urls.items() if item not in result.paths
        }
        try:
            for future in track(as_completed(futures), "pictures", len(futures)):
                item = futures[future]
                try:
                    result.paths[item] = future.result()
                except _Lasting as error:
                    result.problems[item] = f"{urls[item]}: {error}"
                except _Passing as error:
                    result.problems[item] = f"{urls[item]}: {error}, {how.tries} times"
                    unanswered += 1
                    if unanswered >= _HOPELESS and len(result.paths) == result.kept:
                        raise InputError(
                            f"pictures: none of the first {unanswered} could be downloaded ({error}): check the "
                            "network and run again, or give a folder of pictures"
                        ) from None
        finally:
            pool.shutdown(cancel_futures=True)
    order = [item for item in urls if item in result.problems]
    result.problems = {item: result.problems[item] for item in order}
    return result


def item_pictures(
    items: Sequence[str],
    urls: Mapping[str, str],
    source: Path | None,
    out: Path,
    counts: dict[str, Any],
    problems: list[str],
) -> dict[str, Path]:
    """item → picture in `out`, from the folder `source` or, without one, from `urls`; adds to a manifest's counts and
    problems."""
    if source:
        result = copy_pictures(items, source, out)
    else:
        result = download_pictures({item: urls[item] for item in items if item in urls}, out)
        result.problems |= {item: "no address in the product data" for item in items if item not in urls}
    counts["pictures"] = {"there": len(result.paths), "missing": len(result.problems)}
    if result.problems:
        log.warning("%d of %d items have no picture; manifest.json says why", len(result.problems), len(items))
    remedy = "shown without: put it into a folder and prepare into another --out with --images"
    problems += [f"item {item}: picture: {why}: {remedy}" for item, why in result.problems.items()]
    return result.paths


def _kept(items: Iterable[str], out: Path) -> Pictures:
    """What `out` has already; files that are no pictures, and halves, are removed."""
    out.mkdir(parents=True, exist_ok=True)
    for partial in out.glob("*.partial"):
        partial.unlink()
    there, result = _by_item(out), Pictures()
    for item in items:
        if item in there:
            try:
                open_image(str(there[item]))
                result.paths[item] = there[item]
            except InputError:
                there[item].unlink()
    result.kept = len(result.paths)
    return result


def _by_item(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES}


def _fetch(item: str, url: str, out: Path, how: Fetching) -> Path:
    for attempt in range(how.tries):
        try:
            return _place(item, _body(url, how.timeout_s), out)
        except _Passing:
            if attempt == how.tries - 1:
                raise
            time.sleep(how.pause_s * 2**attempt)
    raise AssertionError("tries is at least 1")


def _body(url: str, timeout_s: float) -> bytes:
    if not url.lower().startswith(("http://", "https://")):  # urllib opens file: as well
        raise _Lasting("not an http address")
    try:
        request = urllib.request.Request(quote(url, safe="%/:=&?~#+!$,;'@()*[]"), headers={"User-Agent": USER_AGENT})
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            wanted = answer.headers.get("Content-Length")
            body = answer.read(MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise (_Passing if error.code in _LATER else _Lasting)(f"{error.code} {error.reason}") from None
    except http.client.InvalidURL as error:
        raise _Lasting(f"no address ({error})") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Passing(str(getattr(error, "reason", error)) or type(error).__name__) from None
    except ValueError as error:
        raise _Lasting(f"no address ({error})") from None
    if len(body) > MAX_BYTES:
        raise _Lasting(f"larger than {MAX_BYTES >> 20} MiB")
    if wanted is not None and wanted.isdigit() and len(body) < int(wanted):
        raise _Passing(f"ends after {len(body)} of {wanted} bytes")
    return body


def _place(item: str, content: bytes, out: Path) -> Path:
    """Write `content` under the item's name, once it has been opened as a picture."""
    if not file_name(item):
        raise _Lasting(f"{item!r} cannot be the name of a file")
    partial = out / f"{item}.partial"
    try:
        partial.write_bytes(content)
        open_image(str(partial))
        with Image.open(io.BytesIO(content)) as image:
            suffix = _suffix(image.format or "")
        path = out / f"{item}{suffix}"
        partial.replace(path)
        return path
    except InputError:
        raise _Lasting("not a readable picture") from None
    finally:
        partial.unlink(missing_ok=True)


def _suffix(kind: str) -> str:
    suffix = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif"}.get(kind, f".{kind.lower()}")
    if suffix not in IMAGE_SUFFIXES:
        raise _Lasting(f"a {kind} picture, which is not read")
    return suffix
