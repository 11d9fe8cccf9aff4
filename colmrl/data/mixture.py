"""Training examples of one or several data sets, under one index."""

import random
from bisect import bisect_right
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TypeVar

from colmrl.data.records import Document, Example, Examples, ExampleSequence, Query

R = TypeVar("R", Query, Document)


class Mixture(ExampleSequence):
    """The examples of all `parts`, one after another. Where there are several, each part's number stands before the ids
    of its records (`named`), so that equal ids of two data sets are two.

    `shares`: of the batches, one a part (None: its number of examples).
    """

    def __init__(self, parts: Sequence[Examples], shares: Sequence[float | None] = ()):
        self.parts = tuple(parts)
        self._shares = tuple(shares) or (None,) * len(self.parts)
        assert len(self._shares) == len(self.parts) > 0
        self._starts = [0, *accumulate(map(len, self.parts))]

    @property
    def sizes(self) -> list[int]:
        return [len(part) for part in self.parts]

    @property
    def weights(self) -> list[float] | None:
        """Each part's share of the batches; None: each example counts the same."""
        given = [share for share in self._shares if share is not None]
        assert len(given) in (0, len(self.parts))
        return given or None

    def __len__(self) -> int:
        return self._starts[-1]

    def negatives_of(self, index: int) -> int:
        """How many it has."""
        part, place = self._place(index)
        return self.parts[part].negatives_of(place)

    def with_negatives(self, index: int, chosen: Sequence[int]) -> Example:
        """The example with these of its negatives (counted from 0); only they are read."""
        part, place = self._place(index)
        example = self.parts[part].with_negatives(place, chosen)
        if len(self.parts) == 1:
            return example
        return replace(
            example,
            query=_renamed(part, example.query),
            positive=_renamed(part, example.positive),
            negatives=tuple(_renamed(part, negative) for negative in example.negatives),
        )

    @property
    def most_negatives(self) -> int:
        """Of any example."""
        return max(part.most_negatives for part in self.parts)

    @property
    def scored(self) -> bool:
        """Whether a teacher can teach: some example has its positive's score and one of its negatives'."""
        return any(part.scored for part in self.parts)

    def random_documents(self, index: int, never: Container[str], count: int, rng: random.Random) -> list[Document]:
        """`count` different documents of the example's own data set, or as many as there are; none of `never`, which
        are ids as `own_id` gives them.
        """
        part, _ = self._place(index)
        documents, several = self.parts[part].documents, len(self.parts) > 1
        drawn: list[Document] = []
        for row in _shuffled(len(documents), rng):
            if len(drawn) == count:
                break
            if (named(part, documents.ids[row]) if several else documents.ids[row]) not in never:
                drawn.append(_renamed(part, documents[row]) if several else documents[row])
        return drawn

    def own_id(self, index: int, name: str) -> str:
        """An id of the example's own data set, as its records are named here."""
        return name if len(self.parts) == 1 else named(self._place(index)[0], name)

    def _place(self, index: int) -> tuple[int, int]:
        """The part, and where in it."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect_right(self._starts, index) - 1
        return part, index - self._starts[part]


def named(part: int, name: str) -> str:
    """An id of one of several parts."""
    return f"{part}:{name}"


def join_answers(answers: Sequence[Mapping[str, set[str]]]) -> dict[str, set[str]]:
    """Query id → known answers, of all parts, under the ids that a `Mixture` gives them."""
    if len(answers) == 1:
        return dict(answers[0])
    return {
        named(part, query): {named(part, name) for name in known}
        for part, of_part in enumerate(answers)
        for query, known in of_part.items()
    }


def _renamed(part: int, record: R) -> R:
    return replace(record, id=named(part, record.id))


def _shuffled(count: int, rng: random.Random) -> Iterator[int]:
    """0 … count - 1 in random order; what is not asked for costs nothing (Fisher-Yates on the places touched)."""
    moved: dict[int, int] = {}
    for i in range(count):
        j = rng.randrange(i, count)
        yield moved.get(j, j)
        moved[j] = moved.get(i, i)
