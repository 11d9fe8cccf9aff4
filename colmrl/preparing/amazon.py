"""Amazon reviews and product data → ready sequences, as `data.sequences` reads them.

Read are the releases of 2014 (reviewerID, asin; product data also as Python dicts), 2018 (imageURLHighRes) and 2023
(user_id, parent_asin, timestamp in ms), .gz or plain, line by line. A review is an event: several of one user for one
item all count, as in the published sets. Events of one user stand in time order; at the same time, in file order.
"""

import ast
import gzip
import html
import json
import logging
import math
import re
import zlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from colmrl.data.jsonl import Row, write_rows
from colmrl.errors import InputError, located
from colmrl.files import bounded_lines, write_text
from colmrl.models.generator import Generator
from colmrl.preparing.describe import MAX_NEW_TOKENS, PROMPTS, Described, Form, describe_all
from colmrl.preparing.folder import PreparedFolder
from colmrl.preparing.pictures import item_pictures

log = logging.getLogger(__name__)

TEXT_WORDS = 100  # an item's text is cut there: a query shows up to 20 of them


@dataclass
class _Events:
    """Reviews in file order, users and items by number."""

    user: array = field(default_factory=lambda: array("q"))
    item: array = field(default_factory=lambda: array("q"))
    time: array = field(default_factory=lambda: array("q"))
    users: dict[str, int] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)


@dataclass
class _Product:
    """What is known of an item."""

    text: str = ""
    url: str = ""  # of its picture
    cut: bool = False  # whether the text was longer


def prepare_amazon(
    reviews: str | Path,
    meta: str | Path,
    out: str | Path,
    min_rating: float = 3.0,
    min_uc: int = 20,
    min_sc: int = 20,
    use_image: bool = False,
    images: str | Path | None = None,
    generate_caption: bool = False,
    generate_semantic_summary: bool = False,
    vlm: str | None = None,
) -> Path:
    """Write user_sequence.txt, item_meta.jsonl, images/ and manifest.json; goes on where it was stopped.

    Kept are reviews with a rating of at least `min_rating`, of those the largest part in which every user has `min_uc`
    and every item `min_sc`. `images`: a folder of <item>.<suffix>, in place of downloading.
    """
    asked = {"caption": generate_caption}
    asked |= dict.fromkeys(("semantic_summary", "semantic_summary_small"), generate_semantic_summary)
    forms: list[Form] = [form for form in PROMPTS if asked[form]]
    _check(use_image, images, forms, vlm)
    settings = {"reviews": str(Path(reviews).resolve()), "meta": str(Path(meta).resolve()), "min_rating": min_rating}
    settings |= {"min_uc": min_uc, "min_sc": min_sc, "use_image": use_image, "vlm": vlm, "text_words": TEXT_WORDS}
    settings |= {"images": str(Path(images).resolve()) if images else None}
    settings |= {"prompts": {form: [PROMPTS[form], MAX_NEW_TOKENS[form]] for form in forms}}
    folder = PreparedFolder(Path(out), "amazon", settings)
    if folder.manifest.is_file() and not folder.start():
        log.info("%s: is finished already", out)
        return folder.path
    events, steps = _read_reviews(Path(reviews), min_rating)
    kept = _core(events, min_uc, min_sc, steps, min_rating)
    sequences, repeats = _sequences(events, kept)
    items = list(dict.fromkeys(item for line in sequences for item in line[1:]))
    products, repeated = _read_meta(Path(meta), frozenset(items))
    counts: dict[str, Any] = {"steps": steps, **steps[-1], "repeated_events": repeats, "repeated_meta": repeated}
    counts.pop("step")
    problems = _missing(items, products, Path(meta), counts)
    generator = Generator.load(vlm) if vlm else None
    folder.start()  # only now: what is wrong with the input or the model leaves no folder behind
    paths: dict[str, Path] = {}
    if use_image:
        urls = {item: product.url for item, product in products.items() if product.url}
        paths = item_pictures(items, urls, Path(images) if images else None, folder.path / "images", counts, problems)
    texts = {item: product.text for item, product in products.items()}
    shown = [Described(item, texts.get(item, ""), str(paths.get(item, ""))) for item in items]
    written = describe_all(generator, forms, shown, folder.path / "written", counts, problems) if generator else {}
    write_rows(folder.path / "item_meta.jsonl", [_row(item, written, folder.path) for item in shown])
    write_text(folder.path / "user_sequence.txt", "".join(" ".join(line) + "\n" for line in sequences))
    folder.finish(counts, problems)
    log.info("%s: %d users, %d items, %d interactions", out, *(counts[k] for k in ("users", "items", "interactions")))
    return folder.path


def _row(item: Described, written: Mapping[Form, Mapping[str, str]], root: Path) -> dict[str, Any]:
    return {
        "item": item.item,
        "text": item.text or item.item,
        "image_path": Path(item.image).relative_to(root).as_posix() if item.image else None,
        **{form: written.get(form, {}).get(item.item) or None for form in PROMPTS},
    }


def _check(use_image: bool, images: str | Path | None, forms: list[Form], vlm: str | None) -> None:
    if images and not Path(images).is_dir():
        raise InputError(f"{images}: no such folder: name one with pictures <item>.jpg, .png, …")
    if images and not use_image:
        raise InputError(f"{images}: a folder of pictures without --use-image: give both, or neither")
    if "caption" in forms and not use_image:
        raise InputError("--generate-caption: captions describe pictures: add --use-image")
    if forms and not vlm:
        raise InputError("--vlm: not given: name the vision-language model that writes, a folder or hub id")
    if vlm and not forms:
        raise InputError("--vlm: nothing to write: add --generate-caption, --generate-semantic-summary or both")


def _rows(path: Path) -> Iterator[Row]:
    """Each line's object: JSON, or a Python dict as in the releases of 2014; .gz is told by its first bytes."""
    if not path.is_file():
        raise InputError(f"{path}: no such file: check the path")
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    number = 0
    with gzip.open(path) if packed else path.open("rb") as lines:
        try:
            for number, line in bounded_lines(lines, path):
                if line.strip():
                    yield Row(path, number, _values(path, number, line))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise located(path, number + 1, "line", f"broken gzip ({error})", "download the file again") from None


def _values(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        text = line.decode()
        values = json.loads(text) if not text.lstrip().startswith("{'") else ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:  # ValueError: JSON and Unicode errors alike
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise located(path, number, "line", f"neither JSON nor a dict ({reason})", "mend it or take it out") from None
    if not isinstance(values, dict):
        raise located(path, number, "line", f"a {type(values).__name__}, not an object", "write {…} on each line")
    return values


def _name(row: Row, key: str) -> str:
    name = row.text(key)
    if not name or name.split() != [name] or "/" in name or "\0" in name:
        raise row.error(key, f"{name!r} is no id", "write one without spaces and slashes")
    return name


def _number(row: Row, key: str) -> float:
    numbers = row.numbers(key)
    if not numbers or len(numbers) != 1 or not math.isfinite(numbers[0]):
        raise row.error(key, f"{row.values.get(key)!r} is not a number", "write one")
    return numbers[0]


def _read_reviews(path: Path, min_rating: float) -> tuple[_Events, list[dict[str, Any]]]:
    """Events with the rating, and counts of all and of those."""
    events, users, items, read = _Events(), set[str](), set[str](), 0
    for row in _rows(path):
        if "reviewerID" in row.values:  # 2014, 2018; else 2023
            keys, to_seconds = ("reviewerID", "asin", "overall", "unixReviewTime"), 1
        else:
            item_key = "parent_asin" if "parent_asin" in row.values else "asin"
            keys, to_seconds = ("user_id", item_key, "rating", "timestamp"), 1000
        user, item = _name(row, keys[0]), _name(row, keys[1])
        rating, time = _number(row, keys[2]), _number(row, keys[3])
        read += 1
        users.add(user)
        items.add(item)
        if rating >= min_rating:
            events.user.append(events.users.setdefault(user, len(events.users)))
            events.item.append(events.items.setdefault(item, len(events.items)))
            events.time.append(int(time * 1000 // to_seconds))
    if not read:
        raise InputError(f"{path}: no reviews: give the reviews file of a category")
    steps = [_step("read", len(users), len(items), read)]
    steps.append(_step(f"rating of at least {min_rating:g}", len(events.users), len(events.items), len(events.user)))
    return events, steps


def _step(name: str, users: int, items: int, interactions: int) -> dict[str, Any]:
    log.info("%s: %d users, %d items, %d interactions", name, users, items, interactions)
    return {"step": name, "users": users, "items": items, "interactions": interactions}


def _core(
    events: _Events, min_uc: int, min_sc: int, steps: list[dict[str, Any]], min_rating: float
) -> Bool[np.ndarray, " events"]:
    """Which events stay when users and items with too few are taken out until none is left; adds to `steps`."""
    user, item = np.asarray(events.user), np.asarray(events.item)
    kept = np.ones(len(user), bool)
    while True:
        before = kept.sum()
        for ids, least, what in ((user, min_uc, "users"), (item, min_sc, "items")):
            kept &= np.bincount(ids[kept], minlength=len(ids))[ids] >= least
            sizes = len(np.unique(user[kept])), len(np.unique(item[kept])), int(kept.sum())
            steps.append(_step(f"{what} with at least {least}", *sizes))
        if not kept.any():
            said = "; ".join(f"{s['step']}: {s['users']} users, {s['items']} items" for s in steps[:4])
            limits = f"--min-rating {min_rating:g}, --min-uc {min_uc}, --min-sc {min_sc}"
            raise InputError(f"{limits}: nothing is left ({said} …): lower them")
        if kept.sum() == before:
            return kept


def _sequences(events: _Events, kept: Bool[np.ndarray, " events"]) -> tuple[list[list[str]], int]:
    """[user, item, item …] a user, in order of their first event in the file; how many events repeat an earlier one's
    user and item."""
    chosen: Int[np.ndarray, " kept"] = np.flatnonzero(kept)
    user, item, time = (np.asarray(column)[chosen] for column in (events.user, events.item, events.time))
    users, items = list(events.users), list(events.items)
    lines: dict[int, list[str]] = {int(number): [users[number]] for number in dict.fromkeys(user.tolist())}
    for i in np.lexsort((chosen, time)).tolist():
        lines[int(user[i])].append(items[item[i]])
    pairs = len(set(zip(user.tolist(), item.tolist(), strict=True)))
    return list(lines.values()), len(chosen) - pairs


def _read_meta(path: Path, wanted: frozenset[str]) -> tuple[dict[str, _Product], int]:
    """Products of the wanted items; of several lines on one item the first counts, the others are counted."""
    products: dict[str, _Product] = {}
    repeated = 0
    for row in _rows(path):
        item = _name(row, "parent_asin" if "parent_asin" in row.values else "asin")
        if item in products:
            repeated += 1
        elif item in wanted:
            products[item] = _product(row)
    return products, repeated


def _product(row: Row) -> _Product:
    """Title, brand, categories, features and description, in this order, cut after TEXT_WORDS words."""
    categories = row.values.get("categories") or row.values.get("category")
    if isinstance(categories, list) and categories and isinstance(categories[0], list):
        row.values["categories"] = categories[0]  # 2014: several paths, the first is the main one
    brand = "brand" if row.values.get("brand") else "store"
    parts = [" ".join(row.texts(key)) for key in ("title", brand)]
    parts.append(", ".join(row.texts("categories" if row.values.get("categories") else "category")))
    parts += [
        " ".join(row.texts(key)) for key in ("features" if "features" in row.values else "feature", "description")
    ]
    words = [" ".join(html.unescape(re.sub(r"<[^<>]*>", " ", part)).split()) for part in parts]
    text = ". ".join(part.rstrip(".") for part in words if part).split()
    return _Product(" ".join(text[:TEXT_WORDS]), _url(row), len(text) > TEXT_WORDS)


def _url(row: Row) -> str:
    """The address of the product's first picture, large rather than small."""
    images = row.values.get("images")
    if isinstance(images, list) and images and isinstance(images[0], dict):  # 2023
        first = Row(row.path, row.line, images[0])
        return next((url for key in ("large", "hi_res", "thumb") for url in first.texts(key) if url), "")
    keys = ("imageURLHighRes", "imageURL", "imUrl")  # 2018, 2018, 2014
    return next((url for key in keys for url in row.texts(key) if url), "")


def _missing(items: list[str], products: Mapping[str, _Product], path: Path, counts: dict[str, Any]) -> list[str]:
    """A line for each item whose text can only be its id; they stay, so that sequences are whole."""
    without_meta = [item for item in items if item not in products]
    without_text = [item for item in items if item in products and not products[item].text]
    counts |= {"items_without_meta": len(without_meta), "items_without_text": len(without_text)}
    counts["texts_cut"] = sum(product.cut for product in products.values())
    if len(without_meta) == len(items):
        raise InputError(f"{path}: has none of the {len(items)} items: give the product data of the same release")
    if without_meta or without_text:
        log.warning("%d items without text show their id", len(without_meta) + len(without_text))
    remedy = "its text is its id: add it there and prepare into another --out"
    return [f"item {item}: no line in {path}: {remedy}" for item in without_meta] + [
        f"item {item}: neither title nor description in {path}: {remedy}" for item in without_text
    ]
