"""A contact sheet: drawn queries, each with its positives and negatives, as the model is shown them.

Text is set in DejaVu Sans, which comes with matplotlib, and where that lacks a character, in whatever font of the
machine has it. What no font has is replaced by its number and script, ⟨12 CJK⟩, and said.
"""

import random
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from colmrl.checking.measuring import shown
from colmrl.config import ModelConfig
from colmrl.data.media import open_image
from colmrl.data.records import Document, Examples, Query
from colmrl.errors import InputError

QUERIES, POSITIVES, NEGATIVES = 8, 2, 4  # rows; at most so many of each a row
_WIDTH, _GAP, _PAD, _TITLE, _HEAD, _TALLEST = 320, 8, 10, 78, 26, 420  # pixels; the last: of a picture
_SIZE, _LINE = 15, 20  # of type, and from line to line
_PICTURES, _LINES, _LINES_BELOW, _LONGEST = 3, 14, 5, 1500  # a cell's pictures, lines, lines below pictures, characters

Role = Literal["query", "positive", "negative", "random other"]
_INK = {"query": "#1b6ca8", "positive": "#1b7837", "negative": "#d95f02", "random other": "#6b6b6b"}
_ALARM = "#b2182b"


@dataclass(frozen=True)
class Cell:
    role: Role
    record: Query | Document
    note: str = ""


def draw_rows(examples: Examples, positives: Mapping[str, Set[str]], seed: int) -> list[list[Cell]]:
    """Queries drawn by the seed, each with its documents; random ones where the data has no negatives."""
    draw, rows, seen = random.Random(seed), list[list[Cell]](), set[str]()
    for index in draw.sample(range(len(examples)), min(len(examples), 16 * QUERIES)):
        if len(rows) == QUERIES:
            break
        example = examples[index]
        if example.query.id in seen:
            continue
        seen.add(example.query.id)
        known = positives.get(example.query.id, {example.positive.id})
        others = [name for name in sorted(known - {example.positive.id}) if name in examples.documents.position]
        true = [example.positive, *map(examples.documents.named, others[: POSITIVES - 1])]
        row = [Cell("query", example.query), *(Cell("positive", document) for document in true)]
        if len(others) >= POSITIVES:
            row[-1] = Cell("positive", true[-1], f", and {len(others) + 1 - POSITIVES} more")
        if example.negatives:
            row += [Cell("negative", document) for document in example.negatives[:NEGATIVES]]
        else:
            places = draw.sample(range(len(examples.documents)), min(len(examples.documents), NEGATIVES + len(known)))
            false = [place for place in places if examples.documents.ids[place] not in known]
            row += [Cell("random other", examples.documents[place]) for place in false[:NEGATIVES]]
        rows.append(row)
    return rows


def contact_sheet(rows: Sequence[Sequence[Cell]], model: ModelConfig, title: str) -> tuple[Image.Image, str]:
    """The sheet, and which characters no font of this machine has ("" where every one has)."""
    given = {id(cell): shown(cell.record, model) for row in rows for cell in row}
    type_ = Typesetter(
        "".join([title, *(text + cell.record.id for row in rows for cell in row for text in [given[id(cell)][0]])])
    )
    columns = max(sum(cell.role == "positive" for cell in row) for row in rows)
    others = max(len(row) - 1 - sum(cell.role == "positive" for cell in row) for row in rows)
    width = (1 + columns + others) * (_WIDTH + _GAP) + _GAP
    sheet = Image.new(
        "RGB", (width, _TITLE + len(rows) * (_HEAD + _TALLEST + (_LINES + 3) * _LINE + 2 * _GAP)), "white"
    )
    draw = ImageDraw.Draw(sheet)
    type_.write(draw, (_GAP, 8), type_.fit(title, width - 2 * _GAP), "black", bold=True)
    if type_.missing:
        warning = f"no font here has: {type_.missing}; install one, e.g. fonts-noto-cjk, and run again"
        type_.write(draw, (_GAP, 28), type_.fit(warning, width - 2 * _GAP), _ALARM)
    roles = {cell.role for row in rows for cell in row}
    false = " / ".join(f"{role}s" for role in ("negative", "random other") if role in roles)
    for column, name in ((0, "query"), (1, "relevant documents"), (1 + columns, false)):
        type_.write(draw, (_GAP + column * (_WIDTH + _GAP), _TITLE - 24), name, "black", bold=True)
    top = _TITLE
    for row in rows:
        bodies = [draw_body(*given[id(cell)], type_) for cell in row]
        height = _HEAD + max(body.height for body in bodies)
        place = 0
        for cell, body in zip(row, bodies, strict=True):
            place = max(place, 1 + columns) if cell.role in ("negative", "random other") else place
            left = _GAP + place * (_WIDTH + _GAP)
            label = f"{cell.role}  {cell.record.id}{cell.note}"
            draw_cell(sheet, (left, top), height, body, label, _INK[cell.role], type_)
            place += 1
        top += height + 2 * _GAP
    return sheet.crop((0, 0, width, top - _GAP)), type_.missing


def sheet_of_ranks(
    cells: Sequence[tuple[str, str, tuple[str, ...]]], title: str, columns: int = 5
) -> tuple[Image.Image, str]:
    """Documents in the order of their ranks, each a label, text and pictures; and which characters no font has."""
    type_ = Typesetter("".join([title, *(label + text for label, text, _ in cells)]))
    bodies = [draw_body(text, images, type_) for _, text, images in cells]
    rows = [range(start, min(start + columns, len(cells))) for start in range(0, len(cells), columns)]
    heights = [_HEAD + max(bodies[i].height for i in row) for row in rows]
    width = min(columns, len(cells)) * (_WIDTH + _GAP) + _GAP
    sheet = Image.new("RGB", (width, _HEAD + _GAP + sum(heights) + 2 * _GAP * len(rows)), "white")
    type_.write(ImageDraw.Draw(sheet), (_GAP, 8), type_.fit(title, width - 2 * _GAP), "black", bold=True)
    top = _HEAD + _GAP
    for row, height in zip(rows, heights, strict=True):
        for column, i in enumerate(row):
            corner = (_GAP + column * (_WIDTH + _GAP), top)
            draw_cell(sheet, corner, height, bodies[i], cells[i][0], _INK["positive"], type_)
        top += height + 2 * _GAP
    return sheet, type_.missing


def draw_cell(
    sheet: Image.Image,
    corner: tuple[int, int],
    height: int,
    body: Image.Image,
    label: str,
    ink: str,
    type_: "Typesetter",
) -> None:
    """A framed body below its label."""
    draw, (left, top) = ImageDraw.Draw(sheet), corner
    sheet.paste(body, (left, top + _HEAD))
    draw.rectangle((left, top, left + _WIDTH - 1, top + height - 1), outline=ink, width=2)
    draw.rectangle((left, top, left + _WIDTH - 1, top + _HEAD - 1), fill=ink)
    type_.write(draw, (left + _PAD, top + 3), type_.fit(label, _WIDTH - 2 * _PAD), "white", bold=True)


def draw_body(text: str, images: tuple[str, ...], type_: "Typesetter") -> Image.Image:
    """Pictures, and below them text, as high as they come out."""
    body = Image.new("RGB", (_WIDTH, _PAD + _TALLEST + (_LINES + 2) * _LINE), "white")
    draw, inner, y = ImageDraw.Draw(body), _WIDTH - 2 * _PAD, _PAD
    if images:
        y += _draw_pictures(body, images[:_PICTURES], type_) + 6
    if len(images) > _PICTURES:
        type_.write(draw, (_PAD, y), f"and {len(images) - _PICTURES} more pictures", _INK["random other"])
        y += _LINE
    lines = type_.wrap(text, inner, _LINES_BELOW if images else _LINES)
    for line in lines or ([] if images else ["(nothing is left to show)"]):
        type_.write(draw, (_PAD, y), line, "black")
        y += _LINE
    return body.crop((0, 0, _WIDTH, y + _PAD))


def _draw_pictures(body: Image.Image, images: Sequence[str], type_: "Typesetter") -> int:
    """Side by side at the top, each as large as its share of the width lets it be; returns the height taken."""
    share = (_WIDTH - 2 * _PAD - 4 * (len(images) - 1)) // len(images)
    tallest, left = 0, _PAD
    for reference in images:
        try:
            picture = open_image(reference, 4 * share * _TALLEST)
        except InputError:
            lines = type_.wrap("cannot be opened: " + Path(reference).name, share, 4)
            for number, line in enumerate(lines):
                type_.write(ImageDraw.Draw(body), (left, _PAD + number * _LINE), line, _ALARM)
            tallest = max(tallest, len(lines) * _LINE)
        else:
            scale = min(share / picture.width, _TALLEST / picture.height, 3)  # a picture of 64 pixels may grow
            size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
            body.paste(picture.resize(size, Image.Resampling.LANCZOS), (left + (share - size[0]) // 2, _PAD))
            tallest = max(tallest, size[1])
        left += share + 4
    return tallest


class Typesetter:
    """Text in as many fonts as its characters need."""

    def __init__(self, sample: str):
        """Finds fonts for every character in `sample`; `missing` says which scripts have none."""
        from matplotlib import get_data_path

        base = Path(get_data_path()) / "fonts" / "ttf"
        paths = [str(base / "DejaVuSans.ttf")]
        wanted = {character for character in sample if _is_drawn(character)} - _covered(paths[0])
        more, absent = _fonts_for(wanted) if wanted else ([], set[str]())
        paths += more
        self._absent = absent
        self._bold = ImageFont.truetype(str(base / "DejaVuSans-Bold.ttf"), _SIZE)
        self._fonts = [ImageFont.truetype(path, _SIZE) for path in paths]
        self._choice = {c: i for i in reversed(range(1, len(paths))) for c in _covered(paths[i]) & wanted}
        scripts = Counter(_script(character) for character in sample if character in absent)
        self.missing = ", ".join(f"{count} characters of {script}" for script, count in scripts.most_common())

    def write(
        self, draw: ImageDraw.ImageDraw, corner: tuple[float, float], line: str, ink: str, bold: bool = False
    ) -> None:
        x, y = corner
        for font, run in self._runs(line, bold):
            draw.text((x, y + _SIZE), run, fill=ink, font=font, anchor="ls")
            x += font.getlength(run)

    def wrap(self, text: str, width: int, lines: int) -> list[str]:
        """At most `lines` lines; an ellipsis where there would be more. Breaks at spaces, and inside what has none."""
        rest = self._readable(" ".join(text[:_LONGEST].split()))
        found: list[str] = []
        while rest and len(found) < lines:
            n = self._longest(rest, width, bold=False)
            if n < len(rest):
                space = rest.rfind(" ", 0, n + 1)
                n = space if space > n // 2 else n
            found.append(rest[:n].rstrip())
            rest = rest[n:].lstrip()
        if rest or len(text) > _LONGEST:
            found[-1] = self.fit(f"{found[-1]} …", width, bold=False)
        return found

    def fit(self, line: str, width: int, bold: bool = True) -> str:
        """The line, or as much of its beginning as goes in, with an ellipsis."""
        line = self._readable(line)
        fits = self._longest(line, width, bold)
        return line if fits == len(line) else line.removesuffix(" …")[: fits - 2].rstrip() + "…"

    def _longest(self, line: str, width: int, bold: bool) -> int:
        """How many characters of a line go in, one at least."""
        low, high = 1, len(line)
        while low < high:
            middle = (low + high + 1) // 2
            if sum(font.getlength(run) for font, run in self._runs(line[:middle], bold)) <= width:
                low = middle
            else:
                high = middle - 1
        return low

    def _runs(self, line: str, bold: bool) -> list[tuple[ImageFont.FreeTypeFont, str]]:
        """The line in pieces of one font each."""
        runs: list[tuple[int, str]] = []
        for character in line:
            font = self._choice.get(character, 0)
            if runs and runs[-1][0] == font:
                runs[-1] = (font, runs[-1][1] + character)
            else:
                runs.append((font, character))
        return [(self._bold if bold and not font else self._fonts[font], run) for font, run in runs]

    def _readable(self, text: str) -> str:
        """With what cannot be drawn counted instead."""
        shown, run = list[str](), ""
        for character in text + "\0":
            if character in self._absent or (run and not character.strip() and character != "\0"):
                run += character
                continue
            if run:
                letters = Counter(_script(c) for c in run if c in self._absent)
                shown.append(f"⟨{sum(letters.values())} {letters.most_common(1)[0][0]}⟩" + run[len(run.rstrip()) :])
                run = ""
            shown.append(character if _is_drawn(character) or character == " " else "")
        return "".join(shown)


def _is_drawn(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Cn", "Zs", "Zl", "Zp")


def _script(character: str) -> str:
    return unicodedata.name(character, "OTHER").split()[0].split("-")[0] if character.isalpha() else "other"


def _covered(path: str) -> set[str]:
    from matplotlib.ft2font import FT2Font

    return {chr(code) for code in FT2Font(path).get_charmap()}


def _fonts_for(wanted: set[str]) -> tuple[list[str], set[str]]:
    """Fonts of the machine that have the characters, the one with most of them first, and those that none has."""
    from matplotlib.font_manager import fontManager
    from matplotlib.ft2font import FT2Font

    upright = {f.fname for f in fontManager.ttflist if f.style == "normal" and f.weight in (400, "normal", "regular")}
    names = sorted(p for p in upright if not Path(p).stem.startswith(("cm", "LastResort", "STIX")))
    coverage = {path: _covered(path) & wanted for path in names if FT2Font(path).scalable}
    chosen: list[str] = []
    while wanted and coverage:
        best = max(coverage, key=lambda path: len(coverage[path] & wanted))
        if not coverage[best] & wanted:
            break
        chosen.append(best)
        wanted = wanted - coverage[best]
    return chosen, wanted
