"""What can be said of measured data sets: counts, lengths, duplicates, negatives that are none, leakage.

Content is compared by 64 bits of a hash: among a million records, two different ones are taken for equal with a chance
of 3 in 10⁸.
"""

from dataclasses import dataclass

import numpy as np

from colmrl.checking.measuring import NAMED, Faults, Measured, Spread
from colmrl.config import ModelConfig
from colmrl.data.records import Collection, relevant


@dataclass(frozen=True)
class SplitCounts:
    """`judged`: documents that have a judgement. `negatives`: explicit ones of a positive; None: the data has none."""

    source: str
    split: str
    queries: int
    judgements: int
    relevant: int
    judged: int
    negatives: Spread | None
    unanswered: list[str]  # queries without a relevant document


@dataclass(frozen=True)
class RecordCounts:
    """The queries or the documents of a data set. `tokens` are of the text before it is cut at `limit`, `inputs` of all
    that the model gets, `flops` of a forward pass; None without a backbone. `equal`: the first groups of records with
    one content, by id."""

    source: str
    kind: str
    records: int
    unjudged: int  # documents that no judgement of any split names; queries that no split judges
    characters: Spread | None
    limit: int
    tokens: Spread | None
    cut: int | None
    visual: Spread | None
    inputs: Spread | None
    flops: Spread | None
    pictures: int
    sizes: int  # different ones
    width: Spread | None
    height: Spread | None
    megapixels: Spread | None
    opened: int
    groups: int
    repeated: int  # records in all groups
    equal: list[list[str]]


@dataclass(frozen=True)
class Shared:
    """What the test split has in common with the training split."""

    what: str
    count: int
    of: int
    meaning: str
    examples: list[str]
    leak: bool = False


@dataclass(frozen=True)
class Findings:
    """`sources`: what each data set is called here → where it is. `attention`: what a person should look at."""

    command: str
    commit: str | None
    seed: int
    sources: dict[str, str]
    splits: list[SplitCounts]
    records: list[RecordCounts]
    language_parameters: int | None  # without the table of embeddings
    leakage: list[Shared]
    attention: list[str]


@dataclass(frozen=True)
class Source:
    """A data set, measured; `name` is the setting that names it."""

    name: str
    collection: Collection
    queries: Measured
    documents: Measured

    def answers(self, split: str) -> dict[str, set[str]]:
        """Query → its relevant documents, of those that have any."""
        found = {query: relevant(grades) for query, grades in self.collection.qrels[split].items()}
        return {query: names for query, names in found.items() if names}

    def query(self, name: str) -> int:
        return int(self.queries.content[self.collection.queries.position[name]])

    def document(self, name: str) -> int:
        return int(self.documents.content[self.collection.documents.position[name]])


def count_split(source: Source, split: str) -> SplitCounts:
    collection, qrels = source.collection, source.collection.qrels[split]
    negatives = None
    if split in collection.examples:
        negatives = Spread.of([len(triple.neg_ids) for triple in collection.examples[split].triples()])
    return SplitCounts(
        source=source.name,
        split=split,
        queries=len(qrels),
        judgements=sum(map(len, qrels.values())),
        relevant=sum(len(relevant(grades)) for grades in qrels.values()),
        judged=len(set[str]().union(*qrels.values())),
        negatives=negatives,
        unanswered=[query for query, grades in qrels.items() if not relevant(grades)],
    )


def count_records(source: Source, kind: str, model: ModelConfig, parameters: int | None) -> RecordCounts:
    found = source.queries if kind == "queries" else source.documents
    records = source.collection.queries if kind == "queries" else source.collection.documents
    limit = model.max_query_tokens if kind == "queries" else model.max_document_tokens
    judged = set[str]()
    for qrels in source.collection.qrels.values():
        judged.update(qrels) if kind == "queries" else judged.update(*qrels.values())
    sizes, counts = np.array([*found.sizes]).reshape(-1, 2), np.array([*found.sizes.values()], dtype=int)
    width, height = (np.repeat(side, counts) for side in sizes.T)
    groups, repeated, equal = _groups(found.content, list(records.ids))
    counted = parameters is not None
    return RecordCounts(
        source=source.name,
        kind=kind,
        records=len(records),
        unjudged=len(records) - len(judged),
        characters=Spread.of(found.characters),
        limit=limit,
        tokens=Spread.of(found.tokens) if counted else None,
        cut=int((found.tokens > limit).sum()) if counted else None,
        visual=Spread.of(found.visual) if counted and found.pictures else None,
        inputs=Spread.of(found.inputs) if counted else None,
        flops=Spread.of(2.0 * parameters * found.inputs) if counted else None,
        pictures=found.pictures,
        sizes=len(sizes),
        width=Spread.of(width),
        height=Spread.of(height),
        megapixels=Spread.of(width * height / 1e6),
        opened=len(found.drawn),
        groups=groups,
        repeated=repeated,
        equal=equal,
    )


def _groups(content: np.ndarray, ids: list[str]) -> tuple[int, int, list[list[str]]]:
    """Groups of records with one content: how many, how many records they have, and the ids of the first few."""
    order = np.argsort(content, kind="stable")
    order = order[content[order] != 0]
    starts = np.flatnonzero(np.diff(content[order], prepend=np.uint64(0)))
    sizes = np.diff(starts, append=len(order))
    starts, sizes = starts[sizes > 1], sizes[sizes > 1]
    first = np.argsort(order[starts])[:NAMED]
    some = [[ids[place] for place in order[starts[i] : starts[i] + min(sizes[i], NAMED)]] for i in first]
    return len(starts), int(sizes.sum()), some


def false_negatives(source: Source, split: str) -> list[str]:
    """Explicit negatives that answer the query: by their id, or as a copy of a document that does."""
    if split not in source.collection.examples:
        return []
    answers, faults = source.answers(split), Faults()
    for triple in source.collection.examples[split].triples():
        known = answers.get(triple.query_id, set[str]()) | {triple.pos_id}
        content = {source.document(name) for name in known}
        for name in triple.neg_ids:
            if name in known or source.document(name) in content:
                faults.add(f"{name} of {triple.query_id}")
    where = f"{source.name}, {split}: {faults.count} explicit negatives are, or equal, a relevant document"
    return [f"{where}: {', '.join(faults.examples)}"] if faults.count else []


def leakage_between(train: Source, train_split: str, test: Source, test_split: str) -> list[Shared]:
    """What is in both splits, by id and by content; queries without a relevant document are left out."""
    taught, asked = train.answers(train_split), test.answers(test_split)
    positives, wanted = set[str]().union(*taught.values()), set[str]().union(*asked.values())
    questions = {train.query(query): query for query in taught}
    contents = {train.document(name): name for name in positives}
    again = [query for query in asked if query in taught]
    queries = [(query, questions[code]) for query in asked if (code := test.query(query)) in questions]
    copies = [(name, contents[code]) for name in sorted(wanted) if (code := test.document(name)) in contents]
    pairs = {(test.query(query), test.document(name)): (query, name) for query in asked for name in asked[query]}
    codes = {(train.query(query), train.document(name)) for query in taught for name in taught[query]}
    known = [pair for code, pair in pairs.items() if code in codes]
    same = sum(train.query(query) == test.query(query) for query in again)
    texts = [f"{a} = {b} {test.collection.queries.named(a).text[:60]!r}" for a, b in queries[:NAMED]]
    there = np.unique(test.documents.content[test.documents.content != 0])
    both = int(np.isin(there, train.documents.content).sum())
    corpora = "one corpus for both, as is usual" if train is test else "harmless in itself"
    usual = ", as is usual in one corpus" if train is test else ""
    return [
        Shared("queries, by id", len(again), len(asked), f"{same} of them ask the same", again[:NAMED]),
        Shared("queries, by content", len(queries), len(asked), "known questions", texts, leak=True),
        Shared("different documents of the corpus, by content", both, len(there), corpora, []),
        Shared(
            "relevant documents, by id",
            len(wanted & positives),
            len(wanted),
            f"positives of training too{usual}",
            sorted(wanted & positives)[:NAMED],
        ),
        Shared(
            "relevant documents, by content",
            len(copies),
            len(wanted),
            f"training teaches the model to find them{usual}",
            [f"{a} = {b}" for a, b in copies[:NAMED]],
            leak=train is not test,
        ),
        Shared(
            "different pairs of query and relevant document, by content",
            len(known),
            len(pairs),
            "the worst: the very answers are taught",
            [f"{query} → {name}" for query, name in known[:NAMED]],
            leak=True,
        ),
    ]
