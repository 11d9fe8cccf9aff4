"""nDCG, Recall, MRR and MAP by pytrec_eval, trec_eval's own code (arXiv:1805.01597)."""

from collections.abc import Mapping

import pytrec_eval

from colmrl.data.records import Qrels

_MEASURES = {
    **{f"ndcg_at_{k}": f"ndcg_cut_{k}" for k in (1, 5, 10)},
    **{f"recall_at_{k}": f"recall_{k}" for k in (1, 5, 10)},
    "map_at_10": "map_cut_10",
}
METRICS = (*_MEASURES, "mrr_at_10")


def per_query(run: Mapping[str, Mapping[str, float]], qrels: Qrels) -> dict[str, dict[str, float]]:
    """query id → metric → value, for every query of the qrels; one that the run does not have scores 0."""
    judged = {query_id: dict(judgements) for query_id, judgements in qrels.items()}
    evaluator = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.1,5,10", "recall.1,5,10", "map_cut.10"})
    reciprocal = pytrec_eval.RelevanceEvaluator(judged, {"recip_rank"})
    full = evaluator.evaluate({query_id: dict(ranked) for query_id, ranked in run.items()})
    first = reciprocal.evaluate({query_id: _top(ranked, 10) for query_id, ranked in run.items()})
    return {
        query_id: {name: full.get(query_id, {}).get(measure, 0.0) for name, measure in _MEASURES.items()}
        | {"mrr_at_10": first.get(query_id, {}).get("recip_rank", 0.0)}
        for query_id in judged
    }


def mean(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """metric → its mean over the queries."""
    return {name: sum(of_query[name] for of_query in values.values()) / len(values) for name in METRICS}


def _top(ranked: Mapping[str, float], k: int) -> dict[str, float]:
    """The first k as trec_eval orders them: by falling score, ties by falling id."""
    return dict(sorted(ranked.items(), key=lambda item: (item[1], item[0]), reverse=True)[:k])
