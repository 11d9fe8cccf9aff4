"""Pairs with video metadata: train_data.jsonl {query, target} and video_meta.jsonl, either side a text or a video_id.

A video's text is its fields under `show.video_template`; its pictures are the images that its line lists, or else
`show.frames` frames sampled evenly from its file (`video`, or an image that is a video file). Other *_data.jsonl files
of the folder are other splits (test_data.jsonl: "test").
"""

import hashlib
import random
import re
from collections.abc import Iterable
from pathlib import Path

from colmrl.data.jsonl import Row, read_records, read_rows, write_rows
from colmrl.data.media import is_video_path
from colmrl.data.records import Collection, Document, Qrels, Query, Records
from colmrl.data.sample import COLOURS, PLACES, SHAPES, draw_picture
from colmrl.data.video import frame_references
from colmrl.errors import InputError
from colmrl.files import new_folder

FIELDS = ("title", "caption", "ocr", "asr")
_FIELD = re.compile(r"\{(\w*)\}")


def read_video_pairs(folder: Path, template: str, frames: int, strict: bool = True) -> Collection:
    """All videos are documents, and so is each text that is a target; each distinct query side is a query.

    Raises InputError for bad lines, files that are not there, a template with unknown fields.
    """
    for name in _FIELD.findall(template):
        if name not in FIELDS:
            raise InputError(f"show.video_template: {{{name}}}: no such field: choose from {', '.join(FIELDS)}")

    def video(row: Row) -> Document:
        document = Document(row.text("video_id"), _filled(template, row), images=_pictures(row, folder, frames))
        if not document.text and not document.images:
            raise row.error(", ".join(FIELDS), "all empty, and no images", "give the video text, images, or both")
        return document

    videos = read_records(folder / "video_meta.jsonl", video, strict, "video_id")
    pairs = {
        path.stem.removesuffix("_data"): list(read_rows(path, _pair, strict))
        for path in sorted(folder.glob("*_data.jsonl"))
    }
    sides = [[side for both in pairs.values() for pair in both if (side := pair[which])] for which in (0, 1)]
    texts = {_text_id(side): side for side in sides[1] if side not in videos.position}
    asked = {_query_id(side, videos): side for side in sides[0]}

    def document(i: int) -> Document:
        if i < len(videos):
            return videos[i]
        return Document(ids[i], texts[ids[i]])

    def query(i: int) -> Query:
        name, side = query_ids[i], asked[query_ids[i]]
        if side not in videos.position:
            return Query(name, side)
        shown = videos.named(side)
        return Query(name, shown.text, shown.images)

    ids, query_ids = [*videos.ids, *texts], list(asked)
    qrels = {split: _qrels(both, videos) for split, both in pairs.items()}
    queries = Records(query_ids, query)
    itself = {name: name for name, side in asked.items() if side in videos.position}
    notes = [
        f"{len(videos)} videos, {len(texts)} texts that are targets",
        f"{len(itself)} queries are videos, {len(asked) - len(itself)} are texts",
    ]
    words = [side for side in {*asked.values(), *texts.values()} - set(videos.ids) if not re.search(r"\s", side)]
    if words:
        shown = ", ".join(map(repr, sorted(words)[:3]))
        notes.append(f"{len(words)} texts are one word ({shown}): if they are video_ids, video_meta.jsonl lacks them")
    return Collection(str(folder), Records(ids, document), queries, qrels, itself=itself, notes=tuple(notes))


def _pair(row: Row) -> tuple[str, str]:
    query, target = row.text("query"), row.text("target")
    for field, side in (("query", query), ("target", target)):
        if not side.strip():
            raise row.error(field, "empty", "write a text, or a video_id of video_meta.jsonl")
    return query, target


def _qrels(pairs: Iterable[tuple[str, str]], videos: Records[Document]) -> Qrels:
    qrels: dict[str, dict[str, int]] = {}
    for query, target in pairs:
        name = target if target in videos.position else _text_id(target)
        qrels.setdefault(_query_id(query, videos), {})[name] = 1
    return qrels


def _query_id(side: str, videos: Records[Document]) -> str:
    return side if side in videos.position else _text_id(side)


def _text_id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _filled(template: str, row: Row) -> str:
    """The template's lines with the row's fields; a line all of whose fields are empty is left out."""
    lines = []
    for line in template.split("\n"):
        names = _FIELD.findall(line)
        values = {name: row.text(name, "").strip() for name in names}
        if not names or any(values.values()):
            lines.append(_FIELD.sub(lambda match, values=values: values[match[1]], line).rstrip())
    return "\n".join(lines).strip()


def _pictures(row: Row, folder: Path, frames: int) -> tuple[str, ...]:
    remedy = "paths are relative to the data folder, or absolute"
    named = [("images", name) for name in row.texts("images")] + [("video", name) for name in row.texts("video")]
    pictures: list[str] = []
    for field, name in named:
        path = row.picture(field, name, folder, remedy)
        if field == "video" and row.values.get("images"):
            continue  # the listed images are its frames
        pictures += frame_references(path, frames) if is_video_path(path) else [path]
    return tuple(pictures)


@new_folder
def write_video_sample(out: Path, seed: int = 0, videos: int = 120, frames: int = 2) -> None:
    """A generated folder of this format: pairs text → text, text → video, video → text and video → video.

    A video is `frames` pictures of the same four objects, jittered; its title names two of them, its caption the
    others, what is read and heard on it a number. Train and test pairs share no video. Same seed, same bytes.
    """
    rng = random.Random(seed)
    (out / "images").mkdir()
    meta, pairs = [], {"train": [], "test": []}
    for number in range(videos):
        objects = tuple(zip(rng.sample(list(COLOURS), 4), rng.choices(SHAPES, k=4), strict=True))
        named = [f"{colour} {shape} {place}" for (colour, shape), place in zip(objects, PLACES, strict=True)]
        name = f"v{number:04d}"
        for copy in (name, f"{name}b"):  # the second is another take of the same scene
            images = [f"images/{copy}-{frame}.png" for frame in range(frames)]
            for image in images:
                draw_picture(objects, rng).save(out / image)
            meta.append(
                {"video_id": copy, "title": " and ".join(named[:2]), "caption": " and ".join(named[2:])}
                | {"images": images, "ocr": f"{number}", "asr": "" if copy == name else f"number {number}"}
            )
        pairs["test" if number % 6 == 5 else "train"] += [
            {"query": " and ".join(rng.sample(named, 2)), "target": name},
            {"query": name, "target": f"{name}b"},
            {"query": f"{name}b", "target": " and ".join(named)},
            {"query": " and ".join(rng.sample(named, 3)), "target": " and ".join(named)},
        ]
    write_rows(out / "video_meta.jsonl", meta)
    for split, rows in pairs.items():
        write_rows(out / f"{split}_data.jsonl", rows)
