"""`eval.py rerank`: rerankers and what they are compared with on one set of candidates, as a table and as files.

results.json    {"command", "commit", "seed", "rows": [{"mode", "protocol", "candidates", "split", "queries", "system",
                "metric", "value"}], "positions": [{"system", "position", "queries", "accuracy", "mrr"}]}
report.md       the same to be read
reranked.trec   the reranked lists (reranked-2.trec … of further models); reranked.scores.jsonl: what a run that was
                killed goes on from
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from colmrl import provenance
from colmrl.config import Config
from colmrl.data.reading import read_collection
from colmrl.data.records import Collection
from colmrl.errors import InputError
from colmrl.evaluation import qilin_protocol
from colmrl.evaluation.baselines import Orders, bm25_on_history, markov, popularity, random_orders
from colmrl.evaluation.each_query import write_each
from colmrl.evaluation.metrics import mean, of_orders
from colmrl.evaluation.report import markdown_table
from colmrl.evaluation.reranking import (
    RANDOM,
    SHUFFLES,
    Judged,
    beside,
    by_position,
    metrics_of,
    ordered,
    save_scores,
    score_all,
)
from colmrl.evaluation.run import Row, facts_of, write_results
from colmrl.files import write_text
from colmrl.reranking.candidates import Candidates, open_candidates
from colmrl.reranking.opening import Opened, open_judge
from colmrl.runtime import use_torch

Protocol = Literal["qilin"]
_LABELS = {"recall": "Recall", "mrr": "MRR", "map": "MAP", "ndcg": "nDCG", "precision": "Precision"}


def judge_rerankers(
    config: Config, models: Sequence[str], out: Path, protocol: Protocol | None = None, given: Sequence[str] = ()
) -> list[tuple[str, list[list[str]]]]:
    """Judge `models` (checkpoints, or stores) on what section `rerank` names as candidates, and write `out`. Returns
    titles and tables: of the protocol's part, where there is one, and of all candidates. `given`: settings that hold in
    place of a checkpoint's own.
    """
    use_torch(config)
    opened = [open_judge(model, config, given) for model in models]
    data, split = config.data.eval_path or config.data.path, config.data.eval_split
    collections = [read_collection(data, config.data, one.show or config.show) for one in opened]
    collection = collections[0] if collections else read_collection(data, config.data, config.show)
    answers = qilin_protocol.official_answers(collection, split) if protocol else None
    candidates = open_candidates(config, collection, split)
    part = qilin_protocol.official_part(candidates) if protocol else None
    names = metrics_of(candidates)
    systems = beside(candidates, collection, config.seed, names)
    judged = [
        _judged(label, one, candidates, shown, names, out / f"reranked{'' if number == 1 else f'-{number}'}")
        for number, (label, one, shown) in enumerate(zip(_labels(models, opened), opened, collections, strict=True), 1)
    ]
    systems += judged
    if candidates.mode == "retrieval":
        systems.append(_best_possible(candidates, names))
    rows = rows_of(systems, candidates, split)
    if part is not None and answers is not None:
        official = [_official(one, part, answers, config.seed) for one in systems]
        rows = rows_of(official, part, split, "qilin") + rows
    positions = _positions(judged, candidates)
    tables = [(title(of_protocol), table_lines(of_protocol)) for of_protocol in _apart(rows)]
    write_results(out / "results.json", rows, config.seed, models=list(models), positions=positions)
    drawn_once = [one for one in systems if one.system != RANDOM]
    each = [({"system": one.system}, of_orders(one.orders, candidates.qrels, names)) for one in drawn_once]
    write_each(out / "results.json", facts_of(candidates.qrels, len(collection.documents)), each)
    _write_report(out / "report.md", rows, positions)
    return tables


def judge_baselines(config: Config, out: Path, k: int) -> list[list[str]]:
    """Write the sequences' baselines as run files of `k` items a user, and judge them; returns the table."""
    data, split = config.data.eval_path or config.data.path, config.data.eval_split
    collection = read_collection(data, config.data, config.show)
    rows: list[Row] = []
    for file, baseline in (("popularity", popularity), ("markov", markov), ("bm25", bm25_on_history)):
        found = baseline(collection, split, k)
        found.save_run(out / f"{file}.trec", file)
        values = mean(of_orders(found.of, found.qrels, metrics_of(found)))
        rows += rows_of([Judged(found.source, values, dict(found.of))], found, split)
    write_results(out / "results.json", rows, config.seed)
    return table_lines(rows)


def _labels(models: Sequence[str], opened: Sequence[Opened]) -> list[str]:
    """What tables call them: their names where these differ, else their folders."""
    names = [one.reranker.name for one in opened]
    labels = names if len(set(names)) == len(names) else list(models)
    if len(set(labels)) < len(labels):
        raise InputError(f"--model: {', '.join(models)}: one is given twice: give each once")
    return labels


def _judged(
    label: str, opened: Opened, candidates: Candidates, collection: Collection, names: Sequence[str], out: Path
) -> Judged:
    reranker = opened.reranker
    scores, seconds = score_all(
        reranker, candidates, collection, out.with_name(f"{out.name}.scores.jsonl"), opened.stamp
    )
    save_scores(out.with_name(f"{out.name}.trec"), candidates, scores, reranker.name)
    orders = ordered(candidates, scores)
    values = mean(of_orders(orders, candidates.qrels, names))
    return Judged(label, values | ({"seconds_per_query": seconds} if seconds is not None else {}), orders)


def _official(one: Judged, part: Candidates, answers: Mapping[str, set[str]], seed: int) -> Judged:
    """By the protocol's definitions; random order as the mean of shuffles here too."""
    shuffled = [random_orders(part, seed + n) for n in range(SHUFFLES)] if one.system == RANDOM else []
    found = [
        qilin_protocol.official_metrics({query: orders[query] for query in part.of}, answers)
        for orders in shuffled or [one.orders]
    ]
    return Judged(one.system, {name: sum(of[name] for of in found) / len(found) for name in found[0]}, one.orders)


def _best_possible(candidates: Candidates, names: Sequence[str]) -> Judged:
    """What no reranker can exceed: the answers that the first stage found, first."""
    orders: Orders = {}
    for query, of_query in candidates.of.items():
        judged = candidates.qrels[query]
        orders[query] = tuple(sorted(of_query, key=lambda name: -judged.get(name, 0)))
    return Judged("best possible", mean(of_orders(orders, candidates.qrels, names)), orders)


def rows_of(
    systems: Sequence[Judged], candidates: Candidates, split: str, protocol: Protocol | None = None
) -> list[Row]:
    """One row a number."""
    about = {
        "mode": candidates.mode,
        "protocol": protocol,
        "candidates": candidates.source,
        "split": split,
        "queries": len(candidates),
    }
    return [
        {**about, "system": one.system, "metric": metric, "value": value}
        for one in systems
        for metric, value in one.values.items()
    ]


def _apart(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each protocol."""
    kinds = dict.fromkeys(row["protocol"] for row in rows)
    return [[row for row in rows if row["protocol"] == kind] for kind in kinds]


def table_lines(rows: Sequence[Row]) -> list[list[str]]:
    """Header and one line a system. InputError where the rows are of several modes, protocols or splits, whose numbers
    cannot be compared.
    """
    for key in ("mode", "protocol", "split"):
        kinds = list(dict.fromkeys(str(row[key]) for row in rows))
        if len(kinds) > 1:
            raise InputError(f"results of {key} {' and '.join(kinds)}: cannot be compared: make a table of each")
    by_system: dict[str, dict[str, float]] = {}
    for row in rows:
        by_system.setdefault(row["system"], {})[row["metric"]] = row["value"]
    metrics = list(dict.fromkeys(row["metric"] for row in rows if row["metric"] != "seconds_per_query"))
    timed = any("seconds_per_query" in values for values in by_system.values())
    lines = [["system", *map(_label, metrics), *(["s/query"] if timed else [])]]
    for system, values in by_system.items():
        seconds = values.get("seconds_per_query")
        numbers = [f"{values[metric]:.4f}" for metric in metrics]
        lines.append([system, *numbers, *([f"{seconds:.3f}" if seconds is not None else ""] if timed else [])])
    return lines


def title(rows: Sequence[Row]) -> str:
    row = rows[0]
    kind = f"qilin's protocol, {row['mode']}" if row["protocol"] else row["mode"]
    return f"{kind}, split {row['split']}, {row['queries']:,} queries"


def _label(metric: str) -> str:
    kind, _, depth = metric.partition("_at_")
    return f"{_LABELS[kind]}@{depth}"


def _positions(systems: Sequence[Judged], candidates: Candidates) -> list[dict[str, Any]]:
    """Of each model: how it does by where the answer stood."""
    return [
        {"system": one.system, **row}
        for one in systems
        for row in by_position(candidates, one.orders, candidates.qrels)
    ]


def _write_report(path: Path, rows: Sequence[Row], positions: Sequence[dict[str, Any]]) -> None:
    parts = [f"# {path.parent.name}", f"`{provenance.command()}`, commit {provenance.commit()}."]
    parts += [f"Candidates: {rows[0]['candidates']}."]
    for of_protocol in _apart(rows):
        parts += [f"## {title(of_protocol)}", markdown_table(table_lines(of_protocol))]
    for system in dict.fromkeys(row["system"] for row in positions):
        of_system = [row for row in positions if row["system"] == system]
        parts.append(f"## {system}: by the position of the answer among the candidates")
        lines = [["position", "queries", "accuracy", "MRR"]]
        lines += [
            [str(row["position"]), f"{row['queries']:,}", f"{row['accuracy']:.3f}", f"{row['mrr']:.3f}"]
            for row in of_system
        ]
        parts.append(markdown_table(lines))
    write_text(path, "\n\n".join(parts) + "\n")
