"""What a reranker must beat: random order, BM25 (Lucene's form, Robertson and Zaragoza 2009), and, for sequences, what
is popular and what came next before (a first-order Markov chain), as first stages that give a run.
"""

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from colmrl.data.records import Collection, Query
from colmrl.data.sequences import INSTRUCTION
from colmrl.errors import InputError
from colmrl.reranking.candidates import Candidates, generator

Orders = dict[str, tuple[str, ...]]  # query id → document ids, the best first

_K1, _B = 1.2, 0.75  # Lucene's
_WORD = re.compile(r"[぀-ヿ㐀-鿿가-힯]+|[^\W぀-ヿ㐀-鿿가-힯]+")


def words(text: str) -> list[str]:
    """In lower case; of Chinese, Japanese and Korean, which have no spaces, pairs of neighbouring characters."""
    found: list[str] = []
    for word in _WORD.findall(text.lower()):
        pairs = "぀" <= word[0] <= "鿿" or "가" <= word[0] <= "힯"
        found += [word[i : i + 2] for i in range(len(word) - 1)] if pairs and len(word) > 1 else [word]
    return found


class Bm25:
    """Over a list of texts: idf = ln(1 + (N - n + 0.5) / (n + 0.5)), tf / (tf + k1 (1 - b + b · length / mean))."""

    def __init__(self, texts: Iterable[str]):
        postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
        lengths: list[int] = []
        for row, text in enumerate(texts):
            counted = Counter(words(text))
            lengths.append(counted.total())
            for word, count in counted.items():
                postings[word].append((row, count))
        self._size = len(lengths)
        norms = _K1 * (1 - _B + _B * np.array(lengths) / max(1e-9, float(np.mean(lengths or [0]))))
        self._postings = {word: self._weighted(found, norms) for word, found in postings.items()}

    def _weighted(
        self, found: list[tuple[int, int]], norms: Float[np.ndarray, " d"]
    ) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        rows, counts = np.array(found).T
        idf = math.log(1 + (self._size - len(found) + 0.5) / (len(found) + 0.5))
        return rows, idf * counts / (counts + norms[rows])

    def scores(self, text: str) -> Float[np.ndarray, " d"]:
        """Of every text; a word that is asked for twice counts twice."""
        total = np.zeros(self._size)
        for word, times in Counter(words(text)).items():
            if word in self._postings:
                rows, weights = self._postings[word]
                total[rows] += times * weights
        return total


def bm25_orders(candidates: Candidates, collection: Collection) -> Orders | None:
    """Each list by BM25, whose statistics are of all candidates of all queries together; None where none has a text."""
    names = list(dict.fromkeys(name for of_query in candidates.of.values() for name in of_query))
    texts = [collection.documents.named(name).body for name in names]
    if not any(texts):
        return None
    index, row_of = Bm25(texts), {name: row for row, name in enumerate(names)}

    def order(query: str, of_query: tuple[str, ...]) -> tuple[str, ...]:
        scores = index.scores(asked_text(collection.queries.named(query)))
        return by_score(of_query, [float(scores[row_of[name]]) for name in of_query])

    return {query: order(query, of_query) for query, of_query in candidates.of.items()}


def asked_text(query: Query) -> str:
    """What is asked for: of a history the items alone."""
    return query.text.removeprefix(INSTRUCTION)


def by_score(names: Sequence[str], scores: Sequence[float]) -> tuple[str, ...]:
    """The highest first, equal ones in the order given."""
    return tuple(names[int(i)] for i in np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable"))


def random_orders(candidates: Candidates, seed: int) -> Orders:
    """Each list shuffled; what is drawn depends on the seed and the query alone."""
    return {
        query: tuple(of_query[int(i)] for i in generator(seed, query).permutation(len(of_query)))
        for query, of_query in candidates.of.items()
    }


def training_sequences(collection: Collection) -> dict[str, list[str]]:
    """User → the items that may be learnt from: all but the last two (of a user with two items, both)."""
    if not collection.queries or "history" not in collection.queries[0].meta:
        raise InputError(f"{collection.source}: not sequences: popularity and Markov need users' items in time order")
    made: dict[str, list[str]] = {}
    for query_id in collection.qrels.get("valid", ()):
        meta = collection.queries.named(query_id).meta
        made[meta["user"]] = list(meta["history"])
    for query_id, judged in collection.qrels.get("train", {}).items():
        user, _, position = query_id.rpartition("/")
        if position == "1" and user not in made:
            made[user] = [*collection.queries.named(query_id).meta["history"], *judged]
    return made


def popularity(collection: Collection, split: str, k: int) -> Candidates:
    """The `k` items that training has most often, for everybody; equal ones as they first appear."""
    found = _popular(collection)[:k]
    return _run("popularity", collection, split, lambda _: found)


def markov(collection: Collection, split: str, k: int) -> Candidates:
    """What followed the user's last item in training, most often first (equal ones as they first appear), then what is
    popular.
    """
    following: dict[str, Counter[str]] = defaultdict(Counter)
    for items in training_sequences(collection).values():
        for item, after in itertools.pairwise(items):
            following[item][after] += 1
    ranked = {item: [name for name, _ in after.most_common(k)] for item, after in following.items()}
    popular = _popular(collection)

    def best(query: Query) -> list[str]:
        first = ranked.get(query.meta["history"][-1], [])
        seen = set(first)
        return [*first, *(name for name in popular[: 2 * k] if name not in seen)][:k]

    return _run("Markov", collection, split, best)


def bm25_on_history(collection: Collection, split: str, k: int) -> Candidates:
    """The items whose texts are most like the history's by BM25, those in it left out."""
    index, ids = Bm25(document.body for document in collection.documents), collection.documents.ids
    row_of = collection.documents.position

    def best(query: Query) -> list[str]:
        scores = index.scores(asked_text(query))
        scores[[row_of[name] for name in query.meta["history"]]] = -np.inf
        top = [row for row in np.argpartition(-scores, min(k, len(ids) - 1))[:k] if scores[row] >= 0]
        return [ids[int(row)] for row in sorted(top, key=lambda row: (-scores[row], row))]

    return _run("BM25 on history", collection, split, best)


def _popular(collection: Collection) -> list[str]:
    counted = Counter(item for items in training_sequences(collection).values() for item in items)
    return [name for name, _ in counted.most_common()]


def _run(name: str, collection: Collection, split: str, best: Callable[[Query], list[str]]) -> Candidates:
    qrels: Mapping[str, Mapping[str, int]] = collection.judged(split)
    of = {query: tuple(best(collection.queries.named(query))) for query in qrels}
    scores = {query: tuple(float(len(names) - i) for i in range(len(names))) for query, names in of.items()}
    return Candidates("retrieval", name, of, scores, qrels)
