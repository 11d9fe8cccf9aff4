"""The sample data set: generated pictures, compositional captions, and near-duplicates that make hard negatives.

A picture is a 2×2 grid of four coloured shapes. A *family* is eight pictures with the same shapes in the same
places that differ only in which shape has which of the family's four colours, so that no bag of attributes
tells them apart: a model must bind colour to shape and place. A caption names two or three of the four
objects. Train and test share no family, picture or caption.
"""

import itertools
import json
import logging
import math
import random
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from colmrl.files import new_folder

log = logging.getLogger(__name__)

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (50, 80, 220),
    "yellow": (235, 205, 40),
    "purple": (140, 60, 180),
    "orange": (240, 140, 30),
    "cyan": (60, 200, 215),
    "black": (30, 30, 30),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
PLACES = ("top left", "top right", "bottom left", "bottom right")
SIZE, SCALE = 64, 4  # pixels a side; drawn SCALE times larger, then reduced, for smooth edges
FAMILY_SIZE = 8

Named = tuple[int, str, str]  # place, colour, shape
Objects = tuple[tuple[str, str], ...]  # (colour, shape) of each place


@dataclass(frozen=True)
class Picture:
    id: str
    family: str
    objects: Objects


def vocabulary() -> list[str]:
    """Every word that captions use."""
    return sorted({*COLOURS, *SHAPES, "and", *" ".join(PLACES).split()})


@new_folder
def write_sample(
    out: Path, seed: int = 0, train_families: int = 150, test_families: int = 32, captions: int = 2
) -> None:
    """Write `out/train` and `out/test`, each in the BEIR layout; the same seed gives the same bytes.

    Train has `captions` queries a picture, test one; in test each query is true of exactly one picture, in train
    every picture that it is true of is in the qrels.
    """
    rng = random.Random(seed)
    used: set[tuple[frozenset[str], tuple[str, ...]]] = set()
    taken: set[str] = set()
    for split, families, per_picture in (("test", test_families, 1), ("train", train_families, captions)):
        pictures = [p for n in range(families) for p in _family(f"{split}-{n:03d}", rng, used)]
        _write_split(out / split, split, pictures, per_picture, taken, rng)
    log.info("%d training and %d test pictures", train_families * FAMILY_SIZE, test_families * FAMILY_SIZE)


def _family(name: str, rng: random.Random, used: set[tuple[frozenset[str], tuple[str, ...]]]) -> list[Picture]:
    while True:
        colours = tuple(rng.sample(list(COLOURS), 4))
        shapes = tuple(rng.choice(SHAPES) for _ in PLACES)
        if len(set(shapes)) >= 3 and (frozenset(colours), shapes) not in used:
            break
    used.add((frozenset(colours), shapes))
    orders = rng.sample(list(itertools.permutations(colours)), FAMILY_SIZE)
    return [Picture(f"{name}-{i}", name, tuple(zip(order, shapes, strict=True))) for i, order in enumerate(orders)]


def _caption(
    picture: Picture, shown: dict[Named, set[str]], alone: bool, taken: set[str], rng: random.Random
) -> tuple[str, list[str]]:
    """A caption not seen before, in any order of its objects, and the ids of all pictures that it is true of
    (`alone`: just the one)."""
    while True:
        places = rng.sample(range(4), rng.choice((2, 3)))
        named = [(place, *picture.objects[place]) for place in places]
        phrases = [f"{colour} {shape} {PLACES[place]}" for place, colour, shape in named]
        key = " and ".join(sorted(phrases))
        answers = sorted(set.intersection(*(shown[one] for one in named)))
        if key not in taken and (len(answers) == 1 or not alone):
            taken.add(key)
            return " and ".join(phrases), answers


def _write_split(
    folder: Path, split: str, pictures: list[Picture], captions: int, taken: set[str], rng: random.Random
) -> None:
    (folder / "images").mkdir(parents=True)
    (folder / "qrels").mkdir()
    for picture in pictures:
        draw_picture(picture.objects, rng).save(folder / "images" / f"{picture.id}.png")
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as corpus:
        for p in pictures:
            row = {"_id": p.id, "image": f"images/{p.id}.png", "meta": {"family": p.family, "objects": p.objects}}
            corpus.write(json.dumps(row) + "\n")
    shown: dict[Named, set[str]] = {}  # what a caption can name → the pictures that show it
    for picture in pictures:
        for place, (colour, shape) in enumerate(picture.objects):
            shown.setdefault((place, colour, shape), set()).add(picture.id)
    with (
        (folder / "queries.jsonl").open("w", encoding="utf-8") as queries,
        (folder / "qrels" / f"{split}.tsv").open("w", encoding="utf-8") as qrels,
    ):
        qrels.write("query-id\tcorpus-id\tscore\n")
        for number, picture in enumerate(p for p in pictures for _ in range(captions)):
            text, answers = _caption(picture, shown, split == "test", taken, rng)
            queries.write(json.dumps({"_id": f"{split}-q{number}", "text": text}) + "\n")
            qrels.writelines(f"{split}-q{number}\t{answer}\t1\n" for answer in answers)


def draw_picture(objects: Objects, rng: random.Random) -> Image.Image:
    """Four shapes on near-white, each jittered in size, place and hue: `SIZE`×`SIZE` RGB."""
    background = rng.randint(235, 255)
    canvas = Image.new("RGB", (SIZE * SCALE, SIZE * SCALE), (background,) * 3)
    draw = ImageDraw.Draw(canvas)
    cell = SIZE * SCALE / 2
    for place, (colour, shape) in enumerate(objects):
        x = (place % 2 + 0.5 + rng.uniform(-0.1, 0.1)) * cell
        y = (place // 2 + 0.5 + rng.uniform(-0.1, 0.1)) * cell
        fill = tuple(min(255, max(0, value + rng.randint(-20, 20))) for value in COLOURS[colour])
        _draw_shape(draw, shape, x, y, cell * rng.uniform(0.28, 0.38), fill, (background,) * 3)
    return canvas.resize((SIZE, SIZE), Image.Resampling.BOX)


def _corners(x: float, y: float, radii: tuple[float, ...]) -> list[tuple[float, float]]:
    """Spread evenly around (x, y), the first above it."""
    turns = [(radius, 2 * math.pi * i / len(radii) - math.pi / 2) for i, radius in enumerate(radii)]
    return [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for radius, turn in turns]


def _draw_shape(
    draw: ImageDraw.ImageDraw,
    shape: str,
    x: float,
    y: float,
    r: float,
    fill: tuple[int, ...],
    background: tuple[int, ...],
) -> None:
    match shape:
        case "circle":
            draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
        case "ring":
            draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
            draw.ellipse((x - r / 2, y - r / 2, x + r / 2, y + r / 2), fill=background)
        case "square":
            draw.rectangle((x - 0.85 * r, y - 0.85 * r, x + 0.85 * r, y + 0.85 * r), fill=fill)
        case "triangle":
            draw.polygon(_corners(x, y, (r,) * 3), fill=fill)
        case "star":
            draw.polygon(_corners(x, y, (r, 0.42 * r) * 5), fill=fill)
        case "cross":
            draw.rectangle((x - r, y - r / 3, x + r, y + r / 3), fill=fill)
            draw.rectangle((x - r / 3, y - r, x + r / 3, y + r), fill=fill)
        case _:
            raise AssertionError(shape)
