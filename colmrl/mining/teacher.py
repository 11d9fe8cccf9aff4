"""Another judge of (query, document) pairs: a store of the same data by another model, a reranker, or scores in a TREC
run file.

What it has no score of is left out. Letters: q queries, k candidates.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from colmrl.config import Config, FilterConfig, TeacherConfig
from colmrl.configure import replace as configured
from colmrl.data.reading import read_collection
from colmrl.data.records import Collection
from colmrl.errors import InputError
from colmrl.mining.block import Block
from colmrl.reranking.candidates import generator
from colmrl.reranking.runs import read_run
from colmrl.reranking.stored import is_store
from colmrl.search.asked import Asked
from colmrl.search.rescoring import pair_scores
from colmrl.store import EmbeddingStore, check_same_data
from colmrl.view import View

log = logging.getLogger(__name__)
_MARGIN = 0.05  # that mine.py --teacher holds candidates to


@runtime_checkable
class Teacher(Protocol):
    name: str  # what reports call it

    def judge(self, block: Block) -> Block:
        """The block with the teacher's scores, without the candidates that it has none of."""
        ...


class StoreTeacher:
    """Exact scores at a view of another store of the same data; its rows need not stand in the same order."""

    def __init__(self, config: TeacherConfig, collection: Collection, ids: Sequence[str]):
        folder = Path(config.store or "")
        self._documents, self._queries = EmbeddingStore(folder / "documents"), EmbeddingStore(folder / "queries")
        check_same_data(self._documents, collection.documents, collection.source)
        check_same_data(self._queries, collection.queries, collection.source)
        self._view = View.parse(config.view) if config.view else self._documents.views()[0]
        self._documents.array_of(self._view)
        self.name = f"{folder} at {self._view}"
        there = {name: row for row, name in enumerate(self._documents.ids)}
        self._row_of = np.array([*(there[name] for name in ids), -1])  # the last: of position -1
        self._asked_row = {name: row for row, name in enumerate(self._queries.ids)}

    def judge(self, block: Block) -> Block:
        asked = Asked.of_store(self._queries, [self._asked_row[name] for name in block.query_ids])
        rows, answers = block.positives
        wanted = self._row_of[np.where(block.left, block.positions, -1)]
        judged = pair_scores(self._documents, self._view, asked, wanted)
        positives = pair_scores(self._documents, self._view, asked.rows(rows.tolist()), self._row_of[answers][:, None])
        return replace(block, judged=judged, judged_positives=positives[:, 0])


class RerankerTeacher:
    """Reads each query with its positives and the candidates that are left, in one drawn order, so that a listwise
    model compares them all and none gains by its place.
    """

    def __init__(self, folder: str, config: Config, collection: Collection, ids: Sequence[str]):
        from colmrl.reranking.opening import open_judge  # torch, transformers

        opened = open_judge(folder, config)
        self.name = folder
        self._reranker, self._ids = opened.reranker, ids
        shown = opened.show and read_collection(config.data.path or collection.source, config.data, opened.show)
        self._collection = shown or collection

    def judge(self, block: Block) -> Block:
        judged = np.full(block.positions.shape, np.nan, dtype=np.float32)
        rows, answers = block.positives
        judged_positives = np.full(len(rows), np.nan, dtype=np.float32)
        for row, query_id in enumerate(block.query_ids):
            own, places = np.flatnonzero(rows == row), np.flatnonzero(block.left[row])
            scores = self._scores(query_id, np.concatenate([answers[own], block.positions[row, places]]))
            judged_positives[own], judged[row, places] = scores[: len(own)], scores[len(own) :]
        return replace(block, judged=judged, judged_positives=judged_positives)

    def _scores(self, query_id: str, documents: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        order = generator(0, query_id).permutation(len(documents))
        shown = [self._collection.documents.named(self._ids[int(place)]) for place in documents[order]]
        scores = np.empty(len(documents), dtype=np.float32)
        scores[order] = self._reranker.score(self._collection.queries.named(query_id), shown)
        return scores


class RunTeacher:
    """`query-id Q0 doc-id rank score tag` a line, by any reranker; kept as one sorted array."""

    def __init__(self, path: Path, query_ids: Sequence[str], ids: Sequence[str]):
        self.name = str(path)
        self._number = {name: number for number, name in enumerate(query_ids)}
        self._span = len(ids)
        keys, scores = _read_run(path, self._number, {name: row for row, name in enumerate(ids)})
        order = np.argsort(keys, kind="stable")
        self._keys, self._scores = keys[order], scores[order]
        twice = np.flatnonzero(np.diff(self._keys) == 0)
        if len(twice):
            query, document = divmod(int(self._keys[twice[0]]), self._span)
            raise InputError(
                f"{path}: query {query_ids[query]!r} and document {ids[document]!r} have two scores: keep one"
            )

    def judge(self, block: Block) -> Block:
        numbers = np.array([self._number[name] for name in block.query_ids])
        rows, answers = block.positives
        judged = self._of(numbers[:, None], block.positions)
        positives = self._of(numbers[rows], answers)
        return replace(block.without(np.isnan(judged)), judged=judged, judged_positives=positives)

    def _of(self, numbers: Int[np.ndarray, "*n"], rows: Int[np.ndarray, "*m"]) -> Float[np.ndarray, "*m"]:
        keys = np.where(rows >= 0, numbers * self._span + rows, -1)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[places] == keys, self._scores[places], np.float32(np.nan))


def open_teacher(
    teacher: TeacherConfig, config: Config, collection: Collection, query_ids: Sequence[str], ids: Sequence[str]
) -> Teacher:
    """`query_ids`: those that are mined for; `ids`: the documents in the mined store's order."""
    if teacher.store:
        return StoreTeacher(teacher, collection, ids)
    if teacher.reranker:
        return RerankerTeacher(teacher.reranker, config, collection, ids)
    return RunTeacher(Path(teacher.scores or ""), query_ids, ids)


def taught_by(config: Config, folder: str) -> Config:
    """With a last step: candidates that this store or reranker scores above 0.95 × the positive's score are left out,
    and triples carry its scores.
    """
    if any(step.teacher for step in config.mine.filters):
        raise InputError(f"--teacher {folder}: mine.filters has a teacher already: give one of the two")
    store, reranker = (folder, None) if is_store(folder) else (None, folder)
    teacher = TeacherConfig(store=store, reranker=reranker, relative_margin=_MARGIN)
    return configured(config, mine={"filters": (*config.mine.filters, FilterConfig(teacher=teacher))})


def _read_run(
    path: Path, queries: Mapping[str, int], documents: Mapping[str, int]
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """query number × documents + document row, and score, of every line that names both."""
    keys, scores, lines = [], [], 0
    for line in read_run(path):
        lines += 1
        if line.query in queries and line.document in documents:
            keys.append(queries[line.query] * len(documents) + documents[line.document])
            scores.append(line.score)
    if not keys:
        raise InputError(f"{path}: none of its {lines} lines scores a query and a document of the data: check the ids")
    if len(keys) < lines:
        log.warning("%s: %d of %d lines are of other queries or documents", path, lines - len(keys), lines)
    return np.array(keys), np.array(scores, dtype=np.float32)
