"""Generated rows in Qilin's schema (the columns and types of THUIR/Qilin), with covers; clicks follow the query.

Three notes at a time show the same two objects in the same places. A search names two objects of a wanted note and
where they are; of what it shows, the notes whose covers have both there are clicked at 90%, the others at 3%. A user of
recommendations likes one object: clicked before, and clicked at 80% where it is shown. Texts name two of a cover's four
objects, not their places. Searches of train and test name different pairs of objects.
"""

import itertools
import logging
import math
import random
from pathlib import Path
from typing import Any

from colmrl.data.sample import COLOURS, PLACES, SHAPES, Named, Objects, draw_picture
from colmrl.errors import InputError
from colmrl.files import new_folder

log = logging.getLogger(__name__)

_COUNTED = ("imp", "imp_rec", "imp_search", "click", "click_rec", "click_search", "like", "collect", "comment", "share")
_ACTS = ("like", "collect", "comment", "share", "follow")
_COUNTS = [
    *(f"{what}_num" for what in (*_COUNTED, "screenshot", "hide")),
    *(f"{where}_{act}_num" for where in ("rec", "search") for act in _ACTS),
    *(f"accum_{act}_num" for act in _ACTS[:3]),
    *(f"{where}view_time" for where in ("", "rec_", "search_")),
    *("valid_view_times", "full_view_times"),
]
_START_S = 1_732_700_000  # of the log, in November 2024
Pair = frozenset[Named]


@new_folder
def write_qilin_sample(
    out: Path, seed: int = 0, searches: int = 400, notes: int = 300, test_searches: int = 100
) -> None:
    """Write notes, searches, recommendations (as many) and users as parquet, covers, and the official-style qrels.

    The same seed gives the same rows and pictures.
    """
    if searches < 1 or test_searches < 1 or notes < 12:
        given = f"--searches: {searches} to train on, {test_searches} to test on, {notes} notes"
        raise InputError(f"{given}: too few: 1, 1 and 12 are the least")
    rng = random.Random(seed)
    covers = _covers(notes, rng)
    rows = [_note(number, objects, rng) for number, objects in enumerate(covers)]
    for row, objects in zip(rows, covers, strict=True):
        path = out / row["image_path"][0]
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_picture(objects, rng).save(path, quality=92)
    users = max(2, searches // 8)
    _write(out / "notes.parquet", rows)
    _write(out / "user_feat.parquet", [_user(number, rng) for number in range(users)])
    test_share = test_searches / (searches + test_searches)
    asked = _split_pairs(covers, test_share, rng)
    titles = [row["note_title"] for row in rows]
    for split, count, start in (("train", searches, 0), ("test", test_searches, searches)):
        numbers = rng.sample(range(start, start + count), count)  # as in the original, rows are in no order
        shown = [_search(covers, asked[split], rng) for _ in numbers]
        found = [_search_row(split, n, users, notes, *one, rng) for n, one in zip(numbers, shown, strict=True)]
        _write(out / f"search_{split}.parquet", found)
        requests = [_request_row(split, number, users, covers, titles, rng) for number in numbers]
        _write(out / f"recommendation_{split}.parquet", requests)
        if split == "test":
            _write_qrels(out / "search.test.qrels.csv", found, "search_result_details_with_idx")
            _write_qrels(out / "recommendation.test.qrels.csv", requests, "rec_result_details_with_idx")
    log.info("%d notes, %d and %d searches", notes, searches, test_searches)


def _covers(notes: int, rng: random.Random) -> list[Objects]:
    """What each note's cover shows, in no order."""
    objects = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    covers: list[Objects] = []
    while len(covers) < notes:
        common = {place: rng.choice(objects) for place in rng.sample(range(4), 2)}
        covers += [tuple(common.get(place) or rng.choice(objects) for place in range(4)) for _ in range(3)]
    covers = covers[:notes]
    rng.shuffle(covers)
    return covers


def _pairs(objects: Objects) -> list[Pair]:
    return [frozenset(two) for two in itertools.combinations([(i, *one) for i, one in enumerate(objects)], 2)]


def _split_pairs(covers: list[Objects], test_share: float, rng: random.Random) -> dict[str, list[list[Pair]]]:
    """Split → the pairs that its searches may name: those that several covers show, and those that one does."""
    count: dict[Pair, int] = {}
    for pair in (pair for objects in covers for pair in _pairs(objects)):
        count[pair] = count.get(pair, 0) + 1
    asked: dict[str, list[list[Pair]]] = {"train": [], "test": []}
    for several in (True, False):
        pairs = [pair for pair, times in count.items() if (times > 1) is several]
        rng.shuffle(pairs)
        tests = min(max(1, round(len(pairs) * test_share)), len(pairs) - 1)
        asked["test"].append(pairs[:tests])
        asked["train"].append(pairs[tests:])
    return {split: [pairs for pairs in kinds if pairs] for split, kinds in asked.items()}


def _search(covers: list[Objects], asked: list[list[Pair]], rng: random.Random) -> tuple[str, list[int], set[int]]:
    """A query, the notes that it shows in order, and which of them answer it."""
    pair = rng.choice(asked[0] if rng.random() < 0.7 else asked[-1])
    named = rng.sample(sorted(pair), 2)  # sorted: a set's order is not the seed's
    answers = {number for number, objects in enumerate(covers) if all(objects[p] == (c, s) for p, c, s in pair)}
    near = [n for n, objects in enumerate(covers) if n not in answers and any(objects[p] == (c, s) for p, c, s in pair)]
    rest = [n for n in range(len(covers)) if n not in answers]
    others = rng.sample(near, min(len(near), 4)) + rng.sample(rest, min(len(rest), rng.randint(5, 12)))
    shown = list(dict.fromkeys([*sorted(answers)[:5], *others]))
    rng.shuffle(shown)
    return " and ".join(f"{colour} {shape} {PLACES[place]}" for place, colour, shape in named), shown, answers


def _clicks(shown: list[int], wanted: set[int], chances: tuple[float, float], rng: random.Random) -> list[bool]:
    """Which are clicked: at least one."""
    clicked = [rng.random() < chances[note not in wanted] for note in shown]
    if not any(clicked):
        clicked[next((i for i, note in enumerate(shown) if note in wanted), 0)] = True
    return clicked


def _details(shown: list[int], clicked: list[bool], kind: str, rng: random.Random) -> list[dict[str, Any]]:
    """What a search ("search") or a request ("request") showed, with the original's types."""
    number = float if kind == "search" else int
    position, moment, rows = 0, _START_S + rng.randrange(100_000), []
    for note, click in zip(shown, clicked, strict=True):
        position += 1 + (rng.random() < 0.1)  # advertisements and the like take places too
        moment += rng.randrange(1, 20) * (position % 5 == 0)
        spent = round(math.exp(rng.gauss(2.5, 0.8)), 3) if click else math.nan if kind == "search" else 0.0
        rows.append(
            {
                "click": number(click),
                "collect": number(click and rng.random() < 0.1),
                "comment": number(click and rng.random() < 0.02),
                "like": number(click and rng.random() < 0.15),
                "note_id": f"{_hash(note):024x}",
                "note_idx": note,
                "page_time": spent,
                "position": number(position),
                f"{kind}_timestamp": float(moment) if kind == "search" else moment * 1000 + position,
                "share": number(click and rng.random() < 0.03),
            }
        )
    return rows


def _search_row(
    split: str, number: int, users: int, notes: int, query: str, shown: list[int], wanted: set[int], rng: random.Random
) -> dict[str, Any]:
    clicked = _clicks(shown, wanted, (0.9, 0.03), rng)
    scored = [[float(note), round(30 - 0.5 * place + rng.random(), 4)] for place, note in enumerate(shown)]
    row: dict[str, Any] = {
        "query": query,
        "query_from_type": float(rng.randint(1, 5)),
        "recent_clicked_note_idxs": [rng.randrange(notes) for _ in range(rng.randint(5, 20))],
        "search_result_details_with_idx": _details(shown, clicked, "search", rng),
        "search_idx": number,
        "session_idx": number // 2,
        "user_idx": rng.randrange(users),
    }
    if split == "test":
        row |= {"bm25_results": scored}
    row |= {"dpr_results": [[note, score + 290] for note, score in scored]}
    if split == "test":
        row |= {"search_results": sorted(shown)}
    return row | {"question_embedding": _embedding(rng)}


def _request_row(
    split: str, number: int, users: int, covers: list[Objects], titles: list[str], rng: random.Random
) -> dict[str, Any]:
    liked = rng.choice(rng.choice(covers))
    with_it = [note for note, objects in enumerate(covers) if liked in objects]
    recent = [rng.choice(with_it) for _ in range(rng.randint(5, 20))]
    offered = rng.sample(with_it, min(len(with_it), 4)) + rng.sample(range(len(covers)), rng.randint(5, 10))
    shown = list(dict.fromkeys(offered))
    rng.shuffle(shown)
    row: dict[str, Any] = {
        "recent_clicked_note_idxs": recent,
        "rec_result_details_with_idx": _details(shown, _clicks(shown, set(with_it), (0.8, 0.05), rng), "request", rng),
        "request_idx": number,
        "session_idx": number // 2,
        "user_idx": rng.randrange(users),
    }
    if split == "test":
        row |= {"rec_results": sorted(shown)}
    return row | {"query": " ".join(titles[note] for note in recent), "question_embedding": _embedding(rng)}


def _note(number: int, objects: Objects, rng: random.Random) -> dict[str, Any]:
    title, content = (" ".join(one) for one in rng.sample(objects, 2))
    shown = rng.randint(50, 5000)
    counts = {name: float(int(shown * rng.random() ** 4 / 3)) for name in _COUNTS} | {"imp_num": float(shown)}
    return {
        "note_title": title,
        "note_content": content,
        "note_type": 1.0,
        **dict.fromkeys(("video_duration", "video_height", "video_width"), 0.0),
        "image_num": 1.0,
        "content_length": float(len(content)),
        "commercial_flag": float(rng.random() < 0.05),
        **{f"taxonomy{level}_id": f"{_hash(ord(title[0]) * level):024x}" for level in (1, 2)},
        "taxonomy3_id": f"{_hash(number):024x}" if rng.random() < 0.5 else None,
        **counts,
        "note_idx": number,
        "image_path": [f"image/part_{number // 1000}/{number}/0.jpg"],
        "note_embedding": _embedding(rng),
    }


def _user(number: int, rng: random.Random) -> dict[str, Any]:
    return {
        "gender": rng.choice(("female", "male")),
        "platform": rng.choice(("iOS", "Android")),
        "age": rng.choice(("16-18", "19-22", "23-25", "26-30", "40+")),
        "fans_num": float(rng.randint(0, 50)),
        "follows_num": float(rng.randint(0, 200)),
        **{f"dense_feat{i}": float(rng.randint(0, 10 ** rng.randint(1, 4))) for i in range(1, 41)},
        "location": rng.choice((None, "Hong Kong  Tsuen Wan", "Beijing  Haidian")),
        "user_idx": number,
    }


def _embedding(rng: random.Random) -> list[float]:
    return [round(rng.gauss(0, 0.5), 6) for _ in range(4)]


def _hash(number: int) -> int:
    """A number of 24 hex digits, as the original's ids are."""
    return number * 0x9E3779B97F4A7C15 % 2**96 ^ 0x67 << 88


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist(rows)
    fields = [one.with_type("string") if pyarrow.types.is_null(one.type) else one for one in table.schema]
    pyarrow.parquet.write_table(table.cast(pyarrow.schema(fields)), path)


def _write_qrels(path: Path, rows: list[dict[str, Any]], column: str) -> None:
    clicked = ((number, item["note_idx"]) for number, row in enumerate(rows) for item in row[column] if item["click"])
    path.write_text("qid,pid\n" + "".join(f"{number},{note}\n" for number, note in clicked), encoding="utf-8")
