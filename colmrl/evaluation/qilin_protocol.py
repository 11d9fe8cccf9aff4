"""Qilin's official evaluation (arXiv:2503.00501): the first 1,000 rows of the test table, by the definitions of
`calculate_metrics` in its baselines (evaluator.py, as kept in github.com/czb772/Qilin at 52af374).

Its means are over the queries that have both a judgement and a ranking (trec_eval's: all that are judged). Its MAP@k
divides by min(answers, k) (trec_eval's map_cut by all answers). MRR@k and Recall@k are the usual ones.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from colmrl.data.qilin_rows import read_qilin_qrels
from colmrl.data.records import Collection
from colmrl.errors import InputError
from colmrl.reranking.candidates import Candidates

ROWS = 1000
_DEPTHS = (10, 100)


def official_metrics(
    orders: Mapping[str, Sequence[str]], answers: Mapping[str, set[str]], depths: Sequence[int] = _DEPTHS
) -> dict[str, float]:
    """MRR, MAP, Recall and Precision at each depth; `orders`: query → documents, the best first."""
    judged = [query for query in answers if query in orders and answers[query]]
    if not judged:
        raise InputError("--protocol qilin: no ranked query is judged: rerank lists of the test split")
    of_queries = [of_query(orders[query], answers[query], depths) for query in judged]
    return {name: sum(values[name] for values in of_queries) / len(judged) for name in of_queries[0]}


def of_query(order: Sequence[str], right: set[str], depths: Sequence[int]) -> dict[str, float]:
    ranks = [rank for rank, name in enumerate(order, 1) if name in right]
    found: dict[str, float] = {}
    for k in depths:
        hits = [rank for rank in ranks if rank <= k]
        precisions = (number / rank for number, rank in enumerate(hits, 1))
        found[f"mrr_at_{k}"] = 1 / hits[0] if hits else 0.0
        found[f"map_at_{k}"] = sum(precisions) / min(len(right), k)
        found[f"recall_at_{k}"] = len(hits) / len(right)
        found[f"precision_at_{k}"] = len(hits) / k
    return found


def official_answers(collection: Collection, split: str) -> dict[str, set[str]]:
    """Row of the test table → clicked notes, unknown ones too: from the official file where it lies beside the tables,
    else from the table's own clicks.
    """
    first = collection.queries[0].meta if len(collection.queries) else {}
    if "exposed" not in first:
        raise InputError(f"--protocol qilin: {collection.source} is not of Qilin's tables: leave --protocol out")
    if split != "test":
        raise InputError(f"--protocol qilin: is of split test, not {split!r}: leave --split or --protocol out")
    task = "search" if "search_idx" in first else "recommendation"
    official = Path(collection.source) / f"{task}.test.qrels.csv"
    if official.is_file():
        return {row: set(judged) for row, judged in read_qilin_qrels(official).items()}
    tests = [name for name in collection.queries.ids if name.isdigit()]
    shown = {name: collection.queries.named(name).meta["exposed"] for name in tests}
    return {name: {result["note"] for result in results if result["click"]} for name, results in shown.items()}


def official_part(candidates: Candidates) -> Candidates:
    """Of the first 1,000 rows of the table."""
    if candidates.mode == "ground_truth":
        raise InputError("--protocol qilin: reranks lists that were shown or found: choose another rerank.mode")
    part = candidates.only(query for query in candidates.of if query.isdigit() and int(query) < ROWS)
    if not part.of:
        raise InputError(f"--protocol qilin: none of the first {ROWS:,} rows has candidates: give the whole test table")
    return part
