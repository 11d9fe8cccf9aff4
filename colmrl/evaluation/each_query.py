"""The numbers of each query, beside a results.json: what noise is measured by.

results.queries.json    {"judged": {"queries", "documents", "hash"}, "queries": [ids],
                        "rows": [{"round", "view" or "system", "ndcg_at_5": [a number a query], …}]}
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from colmrl.errors import InputError
from colmrl.files import write_text

KEPT = ("ndcg_at_5", "ndcg_at_10", "recall_at_1", "recall_at_10", "mrr_at_10")
_DECIMALS = 6

Each = Mapping[str, Mapping[str, float]]  # query id → metric → value


def path_beside(results: Path) -> Path:
    return results.with_name(f"{results.stem}.queries.json")


def write_each(results: Path, judged: Mapping[str, Any], of: Iterable[tuple[Mapping[str, Any], Each]]) -> None:
    """Beside `results`; `of`: what names a row of it (its round and view, or its system), with its numbers."""
    rows, queries = [], list[str]()
    for name, each in of:
        queries = queries or list(each)
        assert list(each) == queries
        metrics = [metric for metric in KEPT if metric in each[queries[0]]]
        rows.append({**name, **{metric: [_short(each[query][metric]) for query in queries] for metric in metrics}})
    write_text(path_beside(results), json.dumps({"judged": judged, "queries": queries, "rows": rows}))


def read_each(results: Path) -> dict[str, Any] | None:
    """None where nothing is known of single queries."""
    path = path_beside(results)
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_bytes())
        lengths = {len(row[metric]) for row in found["rows"] for metric in KEPT if metric in row}
        if lengths - {len(found["queries"])}:
            raise ValueError("not one number a query")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}): remove it, or judge again") from None
    return found


def join_each(results: Path, parts: Sequence[Path]) -> None:
    """Beside `results` what stands beside each of its parts, where all have it and were judged alike."""
    found = [one for part in parts if (one := read_each(part))]
    alike = all((one["judged"], one["queries"]) == (found[0]["judged"], found[0]["queries"]) for one in found)
    if len(found) == len(parts) and alike:
        rows = [row for one in found for row in one["rows"]]
        write_text(path_beside(results), json.dumps({**found[0], "rows": rows}))


def _short(value: float) -> float | int:
    """Few digits: 0 and 1 are the most frequent values."""
    return int(value) if value == int(value) else round(value, _DECIMALS)
