"""Example queries of a run's last store: the five pages found first, and what the first of them matched by."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from colmrl.config import Config
from colmrl.data.media import open_image
from colmrl.data.reading import read_collection
from colmrl.data.records import relevant
from colmrl.errors import InputError
from colmrl.evaluation.each_query import read_each
from colmrl.search import Plan
from colmrl.showing.answering import answer_all, first_words
from colmrl.showing.explaining import picture_of
from colmrl.store import EmbeddingStore
from colmrl.view import View

log = logging.getLogger(__name__)
_WORST, _DRAWN, _PAGES = 3, 3, 5
_WIDTH = 200  # pixels of a small picture


@dataclass(frozen=True)
class Page:
    caption: str
    picture: Image.Image | None
    right: bool


@dataclass(frozen=True)
class Example:
    """`overlay`: of the first page, where there is something to paint on; else `why` not."""

    query: str
    how: str
    pages: list[Page]
    overlay: Image.Image | None
    why: str


def examples(config: Config, store: Path, checkpoint: Path, results: Path) -> list[Example]:
    """The queries that the best view of `results` does worst at, and some drawn. InputError where the checkpoint or the
    data is not what the store was made from.
    """
    documents = EmbeddingStore(store / "documents")
    collection = read_collection(documents.manifest.data, config.data, documents.manifest.show)
    qrels = collection.judged(config.data.eval_split)
    view, chosen = _chosen(results, documents, config.seed)
    queries = [collection.queries.named(name) for name in chosen if name in collection.queries.position]
    found = []
    for answered in answer_all(config, store, queries, Plan.of(view), _PAGES, checkpoint):
        right = relevant(qrels.get(answered.query.id, {}))
        pages = [
            Page(
                f"{result.rank}. {result.document.id} {result.score:.3f}"
                + ("" if result.document.images else f": {result.first_words}"),
                _small(result.document.images),
                result.document.id in right,
            )
            for result in answered.results
        ]
        overlay, why = None, ""
        try:
            overlay = picture_of(answered, answered.results[0])
        except InputError as error:
            why = str(error)
        said = f"{answered.query.id}: {first_words(answered.query)}"
        found.append(Example(said, f"at {view}; right: {', '.join(sorted(right)[:_PAGES])}", pages, overlay, why))
    return found


def _chosen(results: Path, documents: EmbeddingStore, seed: int) -> tuple[View, list[str]]:
    """The best view, the queries that it does worst at and some others."""
    each = read_each(results)
    if each is None:
        raise InputError(f"{results}: nothing is known of single queries: judge again (eval.py)")
    rows = [row for row in each["rows"] if "ndcg_at_5" in row and _is_view(row["view"])]
    best = max(rows, key=lambda row: np.mean(row["ndcg_at_5"]))
    order = np.argsort(best["ndcg_at_5"], kind="stable").tolist()
    others = np.random.default_rng(seed).permutation(order[_WORST:])[:_DRAWN].tolist()
    view = View.parse(best["view"])
    documents.array_of(view)
    return view, [each["queries"][i] for i in [*order[:_WORST], *others]]


def _is_view(name: str) -> bool:
    """Whether a row is of a view by itself: a frontier's may be of an index or of two stages."""
    try:
        View.parse(name)
    except InputError:
        return False
    return True


def _small(images: tuple[str, ...]) -> Image.Image | None:
    if not images:
        return None
    picture = open_image(images[0]).convert("RGB")
    picture.thumbnail((_WIDTH, 2 * _WIDTH))
    return picture
