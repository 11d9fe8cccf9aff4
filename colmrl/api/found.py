"""What a search gives: ranked documents, which a notebook shows as pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

from PIL import Image

from colmrl.data.media import open_image
from colmrl.data.records import Document
from colmrl.errors import InputError
from colmrl.reporting import page
from colmrl.showing.answering import Answer, Result, first_words

_SIDE = 180  # pixels of a small picture
_STYLE = """<style>
.colmrl-found .pages {display: flex; flex-wrap: wrap; gap: 12px; align-items: flex-end}
.colmrl-found figure {margin: 0; width: 190px; font: 12px sans-serif; overflow-wrap: anywhere}
.colmrl-found img {max-width: 180px; border: 1px solid #9996}
</style>"""


@dataclass(frozen=True)
class Hit:
    """One document that was found; `rank` counts from 1."""

    rank: int
    score: float
    document: Document

    @property
    def id(self) -> str:
        return self.document.id

    @property
    def text(self) -> str:
        """Title and text."""
        return self.document.body

    @cached_property
    def image(self) -> Image.Image | None:
        """Its first picture, or None."""
        return open_image(self.document.images[0]) if self.document.images else None

    def __repr__(self) -> str:
        return f"Hit(rank={self.rank}, score={self.score:.4f}, id={self.id!r}, text={first_words(self.document)!r})"


class Found(Sequence[Hit]):
    """The hits of one query, the best first. A notebook shows their pages, `print` a table.

    `query` is what was asked, `how` by which view (or funnel, or reranker), `ms` how long opening, encoding and
    searching took.
    """

    def __init__(self, answered: Answer):
        self.query, self.how, self.ms = first_words(answered.query), answered.how, dict(answered.ms)
        self._hits = [_hit(result) for result in answered.results]

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | list[Hit]:
        return self._hits[index]

    def __len__(self) -> int:
        return len(self._hits)

    @property
    def ids(self) -> list[str]:
        return [hit.id for hit in self]

    def rows(self) -> list[dict[str, Any]]:
        """As `pandas.DataFrame` takes them."""
        return [{"rank": hit.rank, "score": hit.score, "id": hit.id, "text": hit.text} for hit in self]

    def __repr__(self) -> str:
        lines = [f"{hit.rank:>4}  {hit.score:>7.4f}  {hit.id}  {first_words(hit.document)}" for hit in self]
        return "\n".join([f"{self.query!r} at {self.how}", *lines])

    def _repr_html_(self) -> str:
        figures = [page.figure(_small(hit), _caption(hit), False) for hit in self]
        told = page.heading(f"{self.query}   {self.how}")
        return f'{_STYLE}<div class="colmrl-found">{told}{page.pages(figures)}</div>'


def _hit(result: Result) -> Hit:
    return Hit(result.rank, result.score, result.document)


def _caption(hit: Hit) -> str:
    return f"{hit.rank}  {hit.score:.4f}  {hit.id}" + (f"  {first_words(hit.document)}" if hit.text else "")


def _small(hit: Hit) -> Image.Image | None:
    """None where it has no picture, or one that cannot be shown: the ranking can."""
    if not hit.document.images:
        return None
    try:
        picture = open_image(hit.document.images[0], 4 * _SIDE * _SIDE)
    except InputError:
        return None
    picture.thumbnail((_SIDE, 2 * _SIDE))
    return picture
