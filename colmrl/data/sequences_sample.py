"""Generated sequences in the form that `sequences` reads: what comes next follows from what came before."""

import json
import logging
import random
from pathlib import Path

from colmrl.data.sample import COLOURS, PLACES, SHAPES, Objects, draw_picture
from colmrl.errors import InputError
from colmrl.files import new_folder

log = logging.getLogger(__name__)


@new_folder
def write_sequences_sample(out: Path, seed: int = 0, users: int = 200, items: int = 64) -> None:
    """A folder of ready sequences in which the next item follows from the one before; same seed, same bytes.

    The items stand in a ring: what an item shows bottom right, the next one shows top left. A user goes on along the
    ring at 85% of the steps and elsewhere at the rest, 5 to 12 items in all, none twice.
    """
    if users < 1 or items < 16:
        raise InputError(f"--users {users}, --items {items}: too few: 1 and 16 are the least")
    rng = random.Random(seed)
    (out / "images").mkdir()
    numbers = rng.sample(range(items), items)  # of the items along the ring: the catalogue's order tells nothing
    names = [f"item-{number:04d}" for number in numbers]
    with (out / "item_meta.jsonl").open("w", encoding="utf-8") as meta:
        for name, objects in sorted(zip(names, _ring(items, rng), strict=True)):
            draw_picture(objects, rng).save(out / "images" / f"{name}.png")
            meta.write(json.dumps({"item": name, "image_path": f"images/{name}.png", **_texts(objects)}) + "\n")
    with (out / "user_sequence.txt").open("w", encoding="utf-8") as lines:
        for user in range(users):
            path = [rng.randrange(items)]
            for _ in range(rng.randint(4, 11)):
                onward = (path[-1] + 1) % items
                fresh = [i for i in range(items) if i not in path]
                path.append(onward if onward in fresh and rng.random() < 0.85 else rng.choice(fresh))
            lines.write(" ".join([f"user-{user:04d}", *(names[i] for i in path)]) + "\n")
    log.info("the sequences of %d users over %d items", users, items)


def _ring(items: int, rng: random.Random) -> list[Objects]:
    """What each item shows, along the ring; no two show the same."""
    pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    joints = [rng.choice(pairs) for _ in range(items)]
    ring: list[Objects] = []
    while len(ring) < items:
        objects = (joints[len(ring)], rng.choice(pairs), rng.choice(pairs), joints[(len(ring) + 1) % items])
        if objects not in ring:
            ring.append(objects)
    return ring


def _texts(objects: Objects) -> dict[str, str]:
    """The four texts of an item, in words that the sample's tokenizer knows."""
    names = [f"{colour} {shape}" for colour, shape in objects]
    placed = [f"{name} {place}" for name, place in zip(names, PLACES, strict=True)]
    return {
        "text": " and ".join(names),
        "caption": " and ".join(placed),
        "semantic_summary": f"{placed[0]} and {placed[3]}. {placed[1]} and {placed[2]}.",
        "semantic_summary_small": f"{names[0]} and {names[3]}",
    }
