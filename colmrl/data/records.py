"""What every reader yields and every later stage takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Qrels = Mapping[str, Mapping[str, int]]  # query id → document id → grade; grade > 0 is relevant


@dataclass(frozen=True)
class Query:
    """`images` are absolute paths."""

    id: str
    text: str = ""
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Document:
    """`images` are absolute paths, checked to exist; `body` is what a text model reads."""

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
    """A query, one document that answers it, and hard negatives (possibly none), best first."""

    query: Query
    positive: Document
    negatives: tuple[Document, ...] = ()


@dataclass(frozen=True)
class Triple:
    """A mined example by id, with the scores of the model that mined it (None: not known)."""

    query_id: str
    pos_id: str
    neg_ids: tuple[str, ...]
    pos_score: float | None = None
    neg_scores: tuple[float, ...] | None = None


def relevant(judged: Mapping[str, int]) -> set[str]:
    """The document ids that one query's judgements call relevant (grade above zero)."""
    return {document_id for document_id, grade in judged.items() if grade > 0}
