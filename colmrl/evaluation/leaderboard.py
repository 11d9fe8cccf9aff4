"""Results of several runs in one table, those that noise does not tell apart marked as ties.

Rows are ranked by one metric. A row is tied with the first of its rank where the paired bootstrap over queries gives
their difference p ≥ 0.05; the next that differs begins a rank. Where a run says nothing of single queries
(results.queries.json), noise is unknown. Only what was judged on the same judgements stands in one table.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colmrl.errors import InputError
from colmrl.evaluation.each_query import read_each
from colmrl.evaluation.report import markdown_table, round_name, told_apart
from colmrl.evaluation.significance import bootstrap_p

_COLUMNS = {
    "ndcg_at_5": ("nDCG@5", "{:.4f}"),
    "ndcg_at_10": ("nDCG@10", "{:.4f}"),
    "recall_at_1": ("Recall@1", "{:.4f}"),
    "recall_at_10": ("Recall@10", "{:.4f}"),
    "mrr_at_10": ("MRR@10", "{:.4f}"),
    "bytes_per_document": ("bytes/document", "{:,.0f}"),
    "ms_per_query": ("ms/query", "{:.2f}"),
}
_NOISE = 0.05  # of a difference's p, from which on it is noise
_OF_RUN = ("task", "mode", "protocol", "split", "candidates")  # of a row of eval.py mteb and rerank

Mark = str  # "1", "=1" tied with it, "?" not known


@dataclass(frozen=True)
class Entry:
    """One row. `judged`: what it can be compared on; `each`: metric → query id → value, where known."""

    run: str
    round: int | None
    name: str
    judged: str
    values: dict[str, float]
    each: dict[str, dict[str, float]] | None


@dataclass(frozen=True)
class Board:
    """Entries of one judged set, the best first, with their ranks."""

    judged: str
    entries: list[Entry]
    marks: list[Mark]


def leaderboard(folders: Sequence[str], metric: str, seed: int = 0) -> list[Board]:
    """A board for each judged set."""
    paths = [path for folder in folders for path in _results(Path(folder))]
    names = _names(paths)
    entries = [entry for path, name in zip(paths, names, strict=True) for entry in _entries(path, name)]
    by_judged: dict[str, list[Entry]] = {}
    for entry in entries:
        if metric in entry.values:
            by_judged.setdefault(entry.judged, []).append(entry)
    if not by_judged:
        there = sorted({known for entry in entries for known in entry.values})
        raise InputError(f"--metric {metric}: none of these results has it: choose from {', '.join(there)}")
    boards = []
    for judged, some in by_judged.items():
        ranked = sorted(some, key=lambda entry: -entry.values[metric])
        boards.append(Board(judged, ranked, marks(ranked, metric, seed)))
    return boards


def marks(ranked: Sequence[Entry], metric: str, seed: int) -> list[Mark]:
    found: list[Mark] = []
    first = 0
    for place, entry in enumerate(ranked):
        mine, best = (one.each.get(metric) if one.each else None for one in (entry, ranked[first]))
        if place == first:
            found.append(str(place + 1))
        elif mine is None or best is None or mine.keys() != best.keys():
            found.append("?")
        elif bootstrap_p(np.array([mine[query] - best[query] for query in best]), seed) >= _NOISE:
            found.append(f"={first + 1}")
        else:
            first = place
            found.append(str(place + 1))
    return found


def board_lines(board: Board, most: int) -> list[list[str]]:
    """Header and the best `most` (0: all); columns that no entry has are left out."""
    shown = list(zip(board.marks, board.entries, strict=True))[: most or None]
    columns = [name for name in _COLUMNS if any(name in entry.values for _, entry in shown)]
    rounds = any(entry.round is not None for _, entry in shown)
    lines = [["rank", "run", *(["round"] if rounds else []), "what", *(_COLUMNS[name][0] for name in columns)]]
    for mark, entry in shown:
        numbers = [_COLUMNS[name][1].format(entry.values[name]) if name in entry.values else "" for name in columns]
        lines.append([mark, entry.run, *([round_name(entry.round)] if rounds else []), entry.name, *numbers])
    return lines


def as_markdown(boards: Sequence[Board], metric: str, most: int) -> str:
    parts = ["# Leaderboard", f"By {metric}. =N: no more than noise below rank N (paired bootstrap, p ≥ {_NOISE})."]
    parts += ["?: noise unknown. A row is compared with the first of its rank alone."]
    for board in boards:
        parts += [f"## {board.judged}", markdown_table(board_lines(board, most))]
    return "\n\n".join(parts) + "\n"


def _results(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    own = folder / "results.json"
    found = [own] if own.is_file() else sorted(folder.rglob("results.json"))
    if not found:
        raise InputError(f"{folder}: no results.json here or below: give what eval.py, frontier or loop wrote")
    return found


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' names where these differ, else all of their paths, else the files'."""
    folders = [path.resolve().parent.name for path in paths]
    return told_apart(folders, [str(path.parent) for path in paths], list(map(str, paths)))


def _entries(path: Path, run: str) -> list[Entry]:
    """InputError where it is no results.json of ours."""
    each = read_each(path)
    table: dict[tuple[str, Any, str], dict[str, float]] = {}
    protocols = set[str]()  # parts of the queries, of which none is known by itself
    try:
        of_row = {_key(row): row for row in each["rows"]} if each else {}
        for row in json.loads(path.read_bytes())["rows"]:
            kind = ", ".join(str(row[name]) for name in _OF_RUN if row.get(name))
            round_number, name = _key(row)
            protocols.update([kind] if row.get("protocol") else [])
            table.setdefault((kind, round_number, name), {})[row["metric"]] = float(row["value"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: not results of eval.py, frontier or loop ({error!r}): leave it out") from None
    entries = []
    for (kind, number, name), values in table.items():
        known = None if kind in protocols else of_row.get((number, name))
        numbers = None
        if each and known:
            numbers = {m: dict(zip(each["queries"], known[m], strict=True)) for m in values if m in known}
        judged = ", ".join(filter(None, [_said(each["judged"]) if each else "", kind])) or f"not known ({path})"
        entries.append(Entry(run, number, name, judged, values, numbers))
    return entries


def _said(facts: dict[str, Any]) -> str:
    return f"{facts['queries']:,} queries, {facts['documents']:,} documents ({facts['hash'][:6]})"


def _key(row: dict[str, Any]) -> tuple[int | None, str]:
    """Of eval.py mteb, a model's name says view, index and reranker."""
    name = next((name for name in ("model", "view", "system") if name in row), "view")
    return row.get("round"), row[name]
