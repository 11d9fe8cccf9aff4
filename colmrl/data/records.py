"""What every reader yields and every later stage takes.

A `Collection` is one data set. Its documents and queries are `Records`: read when asked for, so that a corpus may be
larger than memory; what is kept of each is its id and where it stands.
"""

import copy
import itertools
import math
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from colmrl.errors import InputError

Qrels = Mapping[str, Mapping[str, int]]  # query id → document id → grade; grade > 0 is relevant


@dataclass(frozen=True)
class Query:
    """`images` are references to pictures, see `media`."""

    id: str
    text: str = ""
    images: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Document:
    """`images` are references to pictures, see `media`; `body` is what a text model reads."""

    id: str
    text: str = ""
    title: str = ""
    images: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def body(self) -> str:
        return f"{self.title} {self.text}".strip()


@dataclass(frozen=True)
class Example:
    """A query, one document that answers it, and hard negatives (possibly none), best first.

    `scores`: a teacher's, of the positive and then of each negative, NaN where there is none (None: of none of them).
    """

    query: Query
    positive: Document
    negatives: tuple[Document, ...] = ()
    scores: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Triple:
    """An example by id, with the scores of a teacher, e.g. the model that mined it (None: not known)."""

    query_id: str
    pos_id: str
    neg_ids: tuple[str, ...] = ()
    pos_score: float | None = None
    neg_scores: tuple[float, ...] | None = None


T = TypeVar("T", bound=Query | Document)


class Records(Sequence[T], Generic[T]):
    """`ids` in order, and `read(i)`, which gives the i-th record anew each time it is asked for."""

    def __init__(self, ids: Sequence[str], read: Callable[[int], T]):
        self.ids, self._read = ids, read

    @classmethod
    def of(cls, records: Sequence[T]) -> "Records[T]":
        """Records that are in memory already."""
        return cls([record.id for record in records], records.__getitem__)

    @cached_property
    def position(self) -> dict[str, int]:
        """Where each id stands."""
        return {name: i for i, name in enumerate(self.ids)}

    def named(self, name: str) -> T:
        return self._read(self.position[name])

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> "list[T]": ...
    def __getitem__(self, index: int | slice) -> "T | list[T]":
        if isinstance(index, slice):
            return [self._read(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._read(index % len(self))


class ExampleSequence(Sequence[Example], ABC):
    """Examples of which only the negatives that are asked for are read; by index, all of them."""

    @abstractmethod
    def negatives_of(self, index: int) -> int:
        """How many it has."""

    @abstractmethod
    def with_negatives(self, index: int, chosen: Sequence[int]) -> Example:
        """The example with these of its negatives (counted from 0); only they are read."""

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.with_negatives(index, range(self.negatives_of(index)))


class Examples(ExampleSequence):
    """Training examples as positions in `queries` and `documents`: 24 bytes and 8 a negative, whatever they show; and
    8 a score, where any has scores."""

    def __init__(self, queries: Records[Query], documents: Records[Document], triples: Iterable[Triple]):
        self.queries, self.documents = queries, documents
        self._query, self._positive, self._negatives, self._offsets = (
            array("q"),
            array("q"),
            array("q"),
            array("q", [0]),
        )
        self._positive_scores, self._negative_scores = array("d"), array("d")  # empty, or as long as the others
        for triple in triples:
            self._add_scores(triple)
            self._query.append(queries.position[triple.query_id])
            self._positive.append(documents.position[triple.pos_id])
            self._negatives.extend(documents.position[name] for name in triple.neg_ids)
            self._offsets.append(len(self._negatives))

    def __len__(self) -> int:
        return len(self._query)

    def negatives_of(self, index: int) -> int:
        """How many it has."""
        return self._offsets[index + 1] - self._offsets[index]

    def with_negatives(self, index: int, chosen: Sequence[int]) -> Example:
        """The example with these of its negatives (counted from 0); only they are read."""
        start = self._offsets[index]
        return Example(
            self.queries[self._query[index]],
            self.documents[self._positive[index]],
            tuple(self.documents[self._negatives[start + number]] for number in chosen),
            self._scores(index, chosen),
        )

    def _add_scores(self, triple: Triple) -> None:
        assert triple.neg_scores is None or len(triple.neg_scores) == len(triple.neg_ids)
        if not self._positive_scores:
            if triple.pos_score is None and not triple.neg_scores:
                return
            self._positive_scores.extend(itertools.repeat(math.nan, len(self)))
            self._negative_scores.extend(itertools.repeat(math.nan, len(self._negatives)))
        self._positive_scores.append(math.nan if triple.pos_score is None else triple.pos_score)
        self._negative_scores.extend(triple.neg_scores or itertools.repeat(math.nan, len(triple.neg_ids)))

    def _scores(self, index: int, chosen: Sequence[int]) -> tuple[float, ...] | None:
        if not self._positive_scores:
            return None
        start = self._offsets[index]
        scores = self._positive_scores[index], *(self._negative_scores[start + number] for number in chosen)
        return None if all(map(math.isnan, scores)) else scores

    @property
    def scored(self) -> bool:
        """Whether a teacher can teach: some example has its positive's score and one of its negatives'."""
        return bool(self._positive_scores) and any(
            not math.isnan(self._positive_scores[i])
            and not all(map(math.isnan, self._negative_scores[self._offsets[i] : self._offsets[i + 1]]))
            for i in range(len(self))
        )

    def triples(self) -> Iterable[Triple]:
        """The same by id; nothing is read."""
        for i in range(len(self)):
            negatives = self._negatives[self._offsets[i] : self._offsets[i + 1]]
            names = tuple(self.documents.ids[position] for position in negatives)
            first, *others = self._scores(i, range(len(names))) or (math.nan,)
            yield Triple(
                self.queries.ids[self._query[i]],
                self.documents.ids[self._positive[i]],
                names,
                None if math.isnan(first) else first,
                None if all(map(math.isnan, others)) else tuple(others),
            )

    def showing(self, documents: Records[Document]) -> "Examples":
        """The same examples with the same documents shown otherwise."""
        other = copy.copy(self)
        other.documents = documents
        return other

    @property
    def most_negatives(self) -> int:
        """Of any example."""
        return max(map(self.negatives_of, range(len(self))), default=0)


V = TypeVar("V")

if TYPE_CHECKING:
    LazyMapping = Mapping
else:

    class LazyMapping:
        """A mapping whose values are read when asked for: checking types while tests run must not ask."""

        def __class_getitem__(cls, _: object) -> type:
            return Mapping


class Splits(Mapping[str, V]):
    """Split → what `read` gives for it, read when first asked for."""

    def __init__(self, names: Iterable[str], read: Callable[[str], V]):
        self._names, self._read, self._known = tuple(names), read, dict[str, V]()

    def __getitem__(self, split: str) -> V:
        if split not in self._names:
            raise KeyError(split)
        if split not in self._known:
            self._known[split] = self._read(split)
        return self._known[split]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class Collection:
    """One data set, whatever it was read from.

    `source` is what messages call it. `qrels`: split → judgements. `examples`: split → training examples, where the
    data itself says which negatives a positive has. `top_ranked`: split → query id → the documents to rerank, in the
    order in which they were shown. `itself`: query id → the document that the query is, where it is one: never a
    negative and never an answer. `notes`: what reading found and a person should know, a line each.
    """

    source: str
    documents: Records[Document]
    queries: Records[Query]
    qrels: LazyMapping[str, Qrels]
    examples: LazyMapping[str, Examples] = field(default_factory=dict)
    top_ranked: LazyMapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    itself: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def judged(self, split: str) -> Qrels:
        """The judgements of a split; an InputError names the splits that there are."""
        if split not in self.qrels:
            there = ", ".join(sorted(self.qrels)) or "none"
            asked = f"no split {split!r} (data.train_split, data.eval_split)"
            raise InputError(f"{self.source}: {asked}: choose from {there}")
        return self.qrels[split]

    def train_on(self, split: str) -> Examples:
        """The split's own examples, or one for each relevant pair of its judgements."""
        judged = self.judged(split)
        if split in self.examples:
            return self.examples[split]
        pairs = (Triple(query, name) for query, grades in judged.items() for name, grade in grades.items() if grade > 0)
        return Examples(self.queries, self.documents, pairs)


def relevant(judged: Mapping[str, int]) -> set[str]:
    """The document ids that one query's judgements call relevant (grade above zero)."""
    return {document_id for document_id, grade in judged.items() if grade > 0}
