"""Why a document was found: each query token's similarity to every patch of the page, painted over it.

As ColPali's similarity maps (arXiv:2407.01449), from the vectors that the store keeps. Letters: q query tokens, m
visual tokens of a page.
"""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from colmrl.checking.sheet import Typesetter
from colmrl.data.media import open_image
from colmrl.encoding import embed
from colmrl.errors import InputError
from colmrl.files import write_whole
from colmrl.models.positions import Grid, by_picture, visual
from colmrl.scoring import MultiVectors
from colmrl.showing.answering import Answer, Result

log = logging.getLogger(__name__)

_WORDS = 5  # panels of single tokens
_WIDTH, _TALLEST, _GAP, _LINE, _BAR = 240, 340, 8, 22, 10  # pixels
_FAINTEST, _STRONGEST = 0.1, 0.6  # how much of a cell's colour is seen
_OVERSAMPLING = 4


@dataclass(frozen=True)
class Explanation:
    """Of one page, the picture `picture` of its document. `names`: of the query tokens that are looked at, which are
    those of its text, or, where the query has pictures, all of them, unnamed.
    """

    picture: int
    names: list[str]
    heats: Float[np.ndarray, "q rows columns"]

    @property
    def mean(self) -> Float[np.ndarray, "rows columns"]:
        """Over the tokens, as a score is."""
        return self.heats.mean(0)

    def telling(self) -> list[int]:
        """The tokens whose similarity stands out most from the page's mean, in their order; none without names."""
        contrast = self.heats.max((1, 2)) - self.heats.mean((1, 2))
        return sorted(np.argsort(-contrast)[:_WORDS].tolist()) if self.names else []

    @property
    def scale(self) -> tuple[float, float]:
        """The similarities that have the first and the last colour, the same for every token."""
        telling = self.telling()
        heats = self.heats[telling] if telling else self.heats
        return float(heats.min()), float(heats.max())

    @property
    def mean_scale(self) -> tuple[float, float]:
        return float(self.mean.min()), float(self.mean.max())


def explain(answered: Answer, result: Result) -> Explanation:
    """InputError where there is nothing to paint on."""
    model, document = answered.model, result.document
    if answered.embedded.multi is None:
        raise InputError("--explain: the checkpoint has no multi head, so no similarity of single tokens: leave it out")
    vectors = _document_vectors(answered, result)
    if vectors.positions is None or not len(visual(vectors.positions)):
        why = "the model sees no picture of it" if document.images else "it has no picture"
        raise InputError(f"--explain: document {document.id!r}: {why}, so there is no page to paint: leave it out")
    query = answered.query
    words = {} if query.images else model.inputs.words(query)
    tokens = answered.embedded.multi.vectors
    tokens = tokens[list(words)] if words else tokens
    similarity = tokens.float() @ vectors.vectors.T
    pages = [on_page(similarity[:, own], positions) for own, positions in by_picture(vectors.positions)]
    best = int(np.argmax([heats.mean(0).max() for heats in pages]))
    return Explanation(best, list(words.values()), pages[best])


def on_page(similarity: Float[Tensor, "q m"], positions: Float[Tensor, "m 2"]) -> Float[np.ndarray, "q rows columns"]:
    """The similarity of each cell of a page; where two tokens see a cell (a tile's, and one of the whole picture's),
    the larger one.
    """
    grid = Grid.of(positions)
    count = grid.rows * grid.columns
    row, column = (positions[:count] * max(grid.rows, grid.columns)).long().unbind(1)
    heats = similarity.new_empty(len(similarity), grid.rows, grid.columns)
    heats[:, row, column] = similarity[:, :count]
    if grid.tile:
        whole = similarity[:, count:].unflatten(1, (grid.tile, grid.tile))
        for dim, size in ((1, grid.rows), (2, grid.columns)):
            whole = whole.repeat_interleave(size // grid.tile, dim)
        heats = torch.maximum(heats, whole)
    return heats.numpy()


def colours(heat: Float[np.ndarray, "rows columns"], low: float, high: float) -> Float[np.ndarray, "rows columns 4"]:
    """Of each cell red, green, blue and how much of it is seen, all of 1: the stronger the more similar."""
    from matplotlib import colormaps

    share = np.clip((heat - low) / max(high - low, 1e-9), 0, 1)
    cells = colormaps["turbo"](share)
    cells[..., 3] = _FAINTEST + (_STRONGEST - _FAINTEST) * share
    return cells


def paint(picture: Image.Image, heat: Float[np.ndarray, "rows columns"], low: float, high: float) -> Image.Image:
    """The picture in grey; over each cell its colour."""
    rows = np.arange(picture.height) * heat.shape[0] // picture.height
    columns = np.arange(picture.width) * heat.shape[1] // picture.width
    cells = colours(heat, low, high)[rows[:, None], columns]
    colour, seen = 255 * cells[..., :3], cells[..., 3:]
    grey = np.asarray(picture.convert("L"), dtype=np.float64)[..., None]
    return Image.fromarray((grey * (1 - seen) + colour * seen).round().astype(np.uint8))


@dataclass(frozen=True)
class _Panel:
    """`scale`: the similarities that have the bar's first and last colour; None: nothing is painted."""

    label: str
    picture: Image.Image
    scale: tuple[float, float] | None = None

    @classmethod
    def of(
        cls, name: str, page: Image.Image, heat: Float[np.ndarray, "rows columns"], scale: tuple[float, float]
    ) -> "_Panel":
        return cls(f"{name}  {heat.max():.2f}", paint(page, heat, *scale), scale)


def picture_of(answered: Answer, result: Result) -> Image.Image:
    """The page as it is, then painted for each telling token, all on one scale, and for the mean of all tokens on its
    own; a bar below each says which similarity has which colour.
    """
    explained = explain(answered, result)
    page = open_image(result.document.images[explained.picture], _OVERSAMPLING * _WIDTH * _TALLEST)
    scale = min(_WIDTH / page.width, _TALLEST / page.height)
    page = page.resize(
        (max(1, round(page.width * scale)), max(1, round(page.height * scale))), Image.Resampling.LANCZOS
    )
    panels = [_Panel(f"{result.rank}  {result.score:.3f}", page)]
    panels += [_Panel.of(explained.names[i], page, explained.heats[i], explained.scale) for i in explained.telling()]
    name = f"mean of {len(explained.names)} tokens" if explained.names else "mean of the whole query"
    panels.append(_Panel.of(name, page, explained.mean, explained.mean_scale))
    title = f"{answered.query.text}   →   {result.document.id}".strip()
    type_ = Typesetter(title + "".join(panel.label for panel in panels))
    width = len(panels) * (_WIDTH + _GAP) + _GAP
    sheet = Image.new("RGB", (width, 3 * _LINE + page.height + 4 * _GAP + _BAR), "white")
    draw = ImageDraw.Draw(sheet)
    type_.write(draw, (_GAP, 6), type_.fit(title, width - 2 * _GAP), "black", bold=True)
    for place, panel in enumerate(panels):
        left, top = _GAP + place * (_WIDTH + _GAP), 2 * _LINE + 2 * _GAP
        type_.write(draw, (left, _LINE + _GAP), type_.fit(panel.label, _WIDTH, bold=False), "black")
        sheet.paste(panel.picture, (left, top))
        if panel.scale:
            low, high = panel.scale
            bar = paint(Image.new("RGB", (_WIDTH, _BAR), "grey"), np.linspace(low, high, _WIDTH)[None], low, high)
            sheet.paste(bar, (left, top + page.height + _GAP))
            below = top + page.height + _GAP + _BAR
            type_.write(draw, (left, below), f"{low:.2f}", "black")
            type_.write(draw, (left + _WIDTH - 2 * _LINE, below), f"{high:.2f}".rjust(5), "black")
    return sheet


def _document_vectors(answered: Answer, result: Result) -> MultiVectors:
    """All of the document's vectors, from the store where it keeps them with positions, else encoded anew."""
    store, full = answered.documents, max(answered.documents.manifest.multi_dims)
    kept = [view for view in store.views() if view.head == "multi" and view.dim == full and view.vectors is None]
    for view in kept:
        vectors = store.multi_rows(view, [result.row])
        if vectors.positions is not None:
            return vectors
    vectors = embed(answered.model, "documents", [result.document], 1).multi
    assert vectors is not None
    return vectors


def write_explanations(answered: Answer, out: Path, most: int) -> None:
    """`explain-RANK.png` of the first `most` documents that have a page; an InputError where none has."""
    written, why = 0, None
    for result in answered.results[:most]:
        try:
            sheet = picture_of(answered, result)
        except InputError as error:
            why = error
            log.info("%s", error)
            continue
        write_whole(out / f"explain-{result.rank}.png", partial(sheet.save, format="PNG"))
        written += 1
    if why is not None and not written:
        raise why
