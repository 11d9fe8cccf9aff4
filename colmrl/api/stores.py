"""`Store`: what `colmrl encode` wrote, searched, judged and mined."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from colmrl.api.found import Found
from colmrl.api.records import QueryInput, as_queries
from colmrl.api.retriever import Retriever
from colmrl.configure import load_config, replace
from colmrl.errors import InputError
from colmrl.evaluation.report import table_lines
from colmrl.evaluation.run import judge
from colmrl.mining import mine
from colmrl.reporting.page import table
from colmrl.search import Plan
from colmrl.search.index_files import read_facts
from colmrl.showing.answering import Answerer
from colmrl.store import EmbeddingStore
from colmrl.view import View, parse_views


class Store:
    """A store of a corpus and its queries, and the checkpoint that made it, which is opened when first needed.

    `documents` and `queries` (of `store.EmbeddingStore`) read vectors at any view.
    """

    def __init__(
        self,
        path: str | Path,
        checkpoint: str | Path | None = None,
        data: str | Path | None = None,
        settings: Sequence[str] = (),
    ):
        self.path = Path(path)
        moved = [f"data.path={Path(data)}"] if data is not None else []
        self._settings = (*moved, *settings)
        self._config = load_config(None, self._settings)
        self._answerer = Answerer(self._config, path, checkpoint)
        self.documents = self._answerer.documents

    @cached_property
    def queries(self) -> EmbeddingStore:
        return EmbeddingStore(self.path / "queries")

    @cached_property
    def retriever(self) -> Retriever:
        """The checkpoint's; searching uses this one too."""
        return Retriever(self._answerer.model)

    @property
    def views(self) -> list[str]:
        """What is kept; where all vectors are, what is made of them on reading (docs/store.md) can be asked for too."""
        return [str(view) for view in self.documents.views()]

    def search(
        self,
        query: QueryInput | list[QueryInput],
        k: int = 10,
        view: str | View | None = None,
        index: str | Path | None = None,
    ) -> Any:
        """The best `k` documents, a `Found`; for a list of queries a list of them.

        Args:
            query: as `Retriever.encode_queries` takes it: a text, a picture, a dict of both, …
            k: how many.
            view: a view, or a funnel (single@64/1000+multi@128); None: what the index is of, or the store's first.
            index: a folder that `colmrl index` wrote; None: exact search.
        """
        if k < 1:
            raise InputError(f"k: {k}: nothing to find: give 1 or more")
        records, alone = as_queries(query)
        folder = Path(index) if index is not None else None
        if view is not None:
            plan = Plan.parse(str(view))
        else:
            plan = Plan.of(View.parse(read_facts(folder)[0].view) if folder else self.documents.views()[0])
        found = [Found(self._answerer.ask(record, plan, k, folder)) for record in records]
        return found[0] if alone else found

    def evaluate(self, views: str | Sequence[str] = (), split: str | None = None) -> "Numbers":
        """nDCG, Recall, MRR, MAP and bytes a document at each view (none: all that are kept), as `eval.py` gives them.

        Args:
            views: e.g. "single@64,multi@64x16", or a list.
            split: the judgements; None: test.
        """
        config = replace(self._config, data={"eval_split": split}) if split else self._config
        return Numbers(judge(config, self.path, parse_views(views)))

    def mine(self, out: str | Path | None = None, *settings: str) -> Path:
        """Mine hard negatives, as `mine.py` does; returns the triples' path.

        Args:
            out: a new file; None: triples.jsonl beside the store.
            settings: "mine.view=single@128", "mine.k=50", "data.train_split=train", … as on the command line.
        """
        config = load_config(None, [*self._settings, *settings])
        return mine(config, self.path, out or self.path.parent / "triples.jsonl")

    def __len__(self) -> int:
        """Documents."""
        return len(self.documents)

    def __repr__(self) -> str:
        kept = ", ".join(spec.name for spec in self.documents.manifest.arrays)
        return f"Store({str(self.path)!r}, {len(self)} documents, {len(self.queries)} queries, keeps {kept})"


class Numbers(list[dict[str, Any]]):
    """Rows of {"view", "metric", "value"}, as `pandas.DataFrame` takes them; shown as a table, a row a view."""

    def __repr__(self) -> str:
        lines = table_lines(self)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)

    def _repr_html_(self) -> str:
        return table(table_lines(self))


def open_store(
    path: str | Path,
    checkpoint: str | Path | None = None,
    data: str | Path | None = None,
    settings: Sequence[str] = (),
) -> Store:
    """Open what `colmrl encode` wrote.

    Args:
        path: the folder.
        checkpoint, data: where they are now; None: where they were when it was written. Others than those are refused.
        settings: "index.candidates=200", "device=cpu", … as on the command line.
    """
    return Store(path, checkpoint, data, settings)
