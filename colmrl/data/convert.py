"""Collection → the native BEIR layout."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from colmrl.data.jsonl import write_rows
from colmrl.data.records import Collection, Document, Query, Records, Triple
from colmrl.data.writing import Pictures
from colmrl.errors import InputError
from colmrl.files import write_text


def write_beir(collection: Collection, out: Path, max_pixels: int | None = None) -> dict[str, int]:
    """The BEIR layout in `out`, with triples/ and top_ranked/ where the data brings them; returns what was written."""
    pictures, counts = Pictures(out / "images", max_pixels), Counter[str]()

    def record(one: Document | Query) -> dict[str, Any]:
        row: dict[str, Any] = {"_id": one.id, "text": one.text}
        if isinstance(one, Document) and one.title:
            row["title"] = one.title
        elif isinstance(one, Query) and one.id in collection.itself:
            row["itself"] = collection.itself[one.id]
        if one.images:
            row["image"] = [pictures.path(image) for image in one.images]
        counts["pictures"] += len(one.images)
        return row | ({"meta": dict(one.meta)} if one.meta else {})

    for split in collection.qrels:
        judged = collection.judged(split)
        lines = [f"{q}\t{d}\t{grade}\n" for q, grades in judged.items() for d, grade in grades.items()]
        for name in (*judged, *(d for grades in judged.values() for d in grades)):
            if any(sign in name for sign in "\t\r\n"):
                raise InputError(f"{collection.source}: id {name!r}: holds a tab or a line break: rename it")
        write_text(out / "qrels" / f"{split}.tsv", "query-id\tcorpus-id\tscore\n" + "".join(lines))
        counts[f"judgements in {split}"] = len(lines)
        if split in collection.examples:
            triples = collection.examples[split].triples()
            counts[f"triples in {split}"] = write_rows(out / "triples" / f"{split}.jsonl", map(_named, triples))
        if split in collection.top_ranked:
            ranked = collection.top_ranked[split].items()
            rows = ({"query-id": query, "corpus-ids": list(names)} for query, names in ranked)
            counts[f"lists to rerank in {split}"] = write_rows(out / "top_ranked" / f"{split}.jsonl", rows)
    counts["queries"] = write_rows(out / "queries.jsonl", map(record, collection.queries))
    counts["documents"] = write_rows(out / "corpus.jsonl", map(record, collection.documents))
    return dict(counts)


def _named(triple: Triple) -> dict[str, Any]:
    row: dict[str, Any] = {"query_id": triple.query_id, "pos_id": triple.pos_id, "neg_ids": list(triple.neg_ids)}
    if triple.pos_score is not None:
        row["pos_score"] = triple.pos_score
    if triple.neg_scores is not None:
        row["neg_scores"] = list(triple.neg_scores)
    return row


def with_fields(collection: Collection, fields: tuple[str, ...]) -> Collection:
    """The same collection, its documents shown by their text, their pictures, or both."""
    if set(fields) == {"text", "image"}:
        return collection

    def shown(i: int) -> Document:
        document = collection.documents[i]
        if fields == ("image",):
            return replace(document, text="", title="")
        return replace(document, images=())

    documents = Records(collection.documents.ids, shown)
    examples = {split: examples.showing(documents) for split, examples in collection.examples.items()}
    return replace(collection, documents=documents, examples=examples)
