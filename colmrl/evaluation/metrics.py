"""nDCG, Recall, MRR and MAP by pytrec_eval, trec_eval's own code (arXiv:1805.01597).

A metric is named `ndcg_at_10`: what is measured, and how deep.
"""

from collections.abc import Mapping, Sequence

import pytrec_eval

from colmrl.data.records import Qrels

_CUT = {"ndcg": "ndcg_cut", "recall": "recall", "map": "map_cut"}
METRICS = (
    *(f"ndcg_at_{k}" for k in (1, 5, 10)),
    *(f"recall_at_{k}" for k in (1, 5, 10)),
    "map_at_10",
    "mrr_at_10",
)


def per_query(
    run: Mapping[str, Mapping[str, float]], qrels: Qrels, names: Sequence[str] = METRICS
) -> dict[str, dict[str, float]]:
    """query id → metric → value, for every query of the qrels; one that the run does not have scores 0."""
    judged = {query_id: dict(judgements) for query_id, judgements in qrels.items()}
    found: dict[str, dict[str, float]] = {query_id: dict.fromkeys(names, 0.0) for query_id in judged}
    asked = {name: name.split("_at_") for name in names}
    cut = {name: f"{_CUT[kind]}_{k}" for name, (kind, k) in asked.items() if kind != "mrr"}
    if cut:
        measures = {f"{_CUT[kind]}.{k}" for kind, k in asked.values() if kind != "mrr"}
        full = pytrec_eval.RelevanceEvaluator(judged, measures)
        for query_id, values in full.evaluate({query_id: dict(ranked) for query_id, ranked in run.items()}).items():
            found[query_id] |= {name: values[measure] for name, measure in cut.items()}
    reciprocal = pytrec_eval.RelevanceEvaluator(judged, {"recip_rank"})
    for name, (_, k) in ((name, parts) for name, parts in asked.items() if parts[0] == "mrr"):
        first = reciprocal.evaluate({query_id: _top(ranked, int(k)) for query_id, ranked in run.items()})
        for query_id, values in first.items():
            found[query_id][name] = values["recip_rank"]
    return found


def of_orders(orders: Mapping[str, Sequence[str]], qrels: Qrels, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """The same of documents in order, the best first."""
    run = {
        query_id: {document_id: float(len(order) - place) for place, document_id in enumerate(order)}
        for query_id, order in orders.items()
    }
    return per_query(run, qrels, names)


def mean(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """metric → its mean over the queries."""
    names = next(iter(values.values()))
    return {name: sum(of_query[name] for of_query in values.values()) / len(values) for name in names}


def _top(ranked: Mapping[str, float], k: int) -> dict[str, float]:
    """The first k as trec_eval orders them: by falling score, ties by falling id."""
    return dict(sorted(ranked.items(), key=lambda item: (item[1], item[0]), reverse=True)[:k])
