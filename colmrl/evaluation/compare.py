"""`eval.py run`: TREC run files on the same judgements, each against the first: numbers, p-values, wins and losses, and
the queries that went worst, to be looked at.

Equal scores of a query are ordered as trec_eval orders them, by falling document id, scores taken as 32-bit floats;
a judged query that a run does not have counts 0; queries that are not judged are left out.

results.json    {"command", "commit", "seed", "rows": [{"round", "system", "metric", "value"}], "comparisons": […]}
report.md       the same to be read, with the worst queries and what was returned
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from colmrl import provenance
from colmrl.config import Config
from colmrl.data.reading import read_collection
from colmrl.data.records import Collection, Qrels, relevant
from colmrl.errors import InputError
from colmrl.evaluation.each_query import write_each
from colmrl.evaluation.metrics import mean, per_query
from colmrl.evaluation.report import markdown_table, told_apart
from colmrl.evaluation.run import facts_of, judgements, without_itself, write_results
from colmrl.evaluation.significance import Difference, difference
from colmrl.files import write_text
from colmrl.reranking.candidates import scores_of_run
from colmrl.showing.answering import first_words

log = logging.getLogger(__name__)
METRICS = ("ndcg_at_5", "ndcg_at_10", "recall_at_10", "recall_at_100", "mrr_at_10", "map_at_100")
LABELS = {"ndcg": "nDCG", "recall": "Recall", "mrr": "MRR", "map": "MAP"}
_WORST_BY = "ndcg_at_10"
_WORST, _RETURNED = 10, 5  # queries, and documents of each
_TIED_AT = 10  # ranks among which equal scores are said

Run = dict[str, dict[str, float]]  # query id → document id → score


@dataclass(frozen=True)
class JudgedRun:
    """`order`: query id → documents, the best first. `each`: query id → metric → value. `missing`: judged queries that
    it does not have; `tied`: queries with equal scores among the first ten.
    """

    name: str
    order: dict[str, list[str]]
    each: dict[str, dict[str, float]]
    missing: int
    tied: int


@dataclass(frozen=True)
class Comparison:
    """Of a run to the first, by one metric."""

    name: str
    metric: str
    found: Difference


@dataclass(frozen=True)
class Worst:
    """`value` of the run, and `first` of the first run where that is another; `answers` and `returned`: documents with
    their first words, those that are right marked.
    """

    run: str
    query: str
    asked: str
    value: float
    first: float | None
    answers: tuple[str, ...]
    returned: tuple[str, ...]
    returned_first: tuple[str, ...] | None


@dataclass(frozen=True)
class Compared:
    runs: list[JudgedRun]
    comparisons: list[Comparison]
    worst: list[Worst]


def compare_runs(config: Config, paths: Sequence[str], out: Path) -> Compared:
    """Judge, compare with the first, and write `out`."""
    collection = read_collection(config.data.eval_path or config.data.path, config.data, config.show)
    qrels = judgements(collection, config.data.eval_split)
    names = _names(paths)
    runs = [judged_run(name, Path(path), collection, qrels) for name, path in zip(names, paths, strict=True)]
    compared = Compared(runs, compare(runs, config.seed), worst_of(runs, collection, qrels))
    rows = [
        {"round": None, "system": run.name, "metric": metric, "value": value}
        for run in runs
        for metric, value in mean(run.each).items()
    ]
    facts = facts_of(qrels, len(collection.documents))
    write_each(out / "results.json", facts, [({"round": None, "system": run.name}, run.each) for run in runs])
    comparisons = [{"run": c.name, "of": names[0], "metric": c.metric, **asdict(c.found)} for c in compared.comparisons]
    write_results(out / "results.json", rows, config.seed, runs=list(paths), comparisons=comparisons)
    write_text(
        out / "report.md", _report(compared, f"{collection.source}, split {config.data.eval_split}", config.seed)
    )
    return compared


def judged_run(name: str, path: Path, collection: Collection, qrels: Qrels) -> JudgedRun:
    found, others = scores_of_run(path, collection, qrels)
    if not found:
        raise InputError(f"{path}: no line is of a judged query: give the run of this data and split")
    run: Run = {q: {d: float(np.float32(score)) for d, score in of_query.items()} for q, of_query in found.items()}
    run = without_itself(run, collection.itself)
    order = {query: [d for _, d in sorted(((s, d) for d, s in of.items()), reverse=True)] for query, of in run.items()}
    tied = sum(_tied(run[query], documents) for query, documents in order.items())
    missing = len(qrels) - len(run)
    for count, said in (
        (others, "queries that are not judged are left out"),
        (missing, "judged queries have no line: they count 0"),
        (tied, f"queries have equal scores among the first {_TIED_AT}: ordered by falling id, as trec_eval does"),
    ):
        if count:
            log.info("%s: %d %s", path, count, said)
    return JudgedRun(name, order, per_query(run, qrels, METRICS), missing, tied)


def _tied(scores: Mapping[str, float], order: Sequence[str]) -> bool:
    first = [scores[document] for document in order[: _TIED_AT + 1]]  # the next may be tied with the last
    return len(set(first)) < len(first)


def compare(runs: Sequence[JudgedRun], seed: int) -> list[Comparison]:
    """Every further run with the first, by every metric."""
    first, *others = runs
    return [
        Comparison(
            run.name,
            metric,
            difference([of[metric] for of in first.each.values()], [of[metric] for of in run.each.values()], seed),
        )
        for run in others
        for metric in METRICS
    ]


def worst_of(runs: Sequence[JudgedRun], collection: Collection, qrels: Qrels) -> list[Worst]:
    """Of the first run the ten queries of the lowest nDCG@10 (equal ones: the first answer furthest down); of each
    further run the ten at which it loses most to the first.
    """
    first, *others = runs
    found: list[Worst] = []
    answerable = [query for query in first.each if relevant(qrels[query])]
    lowest = sorted(answerable, key=lambda q: (first.each[q][_WORST_BY], -_first_answer(first, q, qrels)))
    found += [_worst(first, None, query, collection, qrels) for query in lowest[:_WORST]]
    for run in others:
        lost = {query: run.each[query][_WORST_BY] - first.each[query][_WORST_BY] for query in answerable}
        lost = {query: by for query, by in lost.items() if by < 0}
        found += [_worst(run, first, q, collection, qrels) for q in sorted(lost, key=lambda q: lost[q])[:_WORST]]
    return found


def _first_answer(run: JudgedRun, query: str, qrels: Qrels) -> float:
    """Its rank; after all that were returned where there is none."""
    right = relevant(qrels[query])
    return next((rank for rank, name in enumerate(run.order.get(query, ()), 1) if name in right), float("inf"))


def _worst(run: JudgedRun, first: JudgedRun | None, query: str, collection: Collection, qrels: Qrels) -> Worst:
    right = relevant(qrels[query])

    def described(name: str) -> str:
        if name not in collection.documents.position:
            return f"{name} (not in the corpus)"
        words = first_words(collection.documents.named(name))
        return words if Path(words).stem == name else f"{name}: {words}"

    def returned(by: JudgedRun) -> tuple[str, ...]:
        names = by.order.get(query, ())[:_RETURNED]
        return tuple(("✓ " if name in right else "") + described(name) for name in names)

    return Worst(
        run=run.name,
        query=query,
        asked=first_words(collection.queries.named(query)),
        value=run.each[query][_WORST_BY],
        first=first.each[query][_WORST_BY] if first else None,
        answers=tuple(map(described, sorted(right)[:_RETURNED])),
        returned=returned(run),
        returned_first=returned(first) if first else None,
    )


def _names(paths: Sequence[str]) -> list[str]:
    """Their file names where these differ, else all of their paths."""
    if len(set(paths)) < len(paths):
        raise InputError(f"--run: {', '.join(paths)}: one is given twice: give each once")
    return told_apart([Path(path).stem for path in paths], list(paths))


def run_lines(runs: Sequence[JudgedRun]) -> list[list[str]]:
    lines = [["run", *map(label, METRICS), "queries missing", "with ties"]]
    for run in runs:
        numbers = mean(run.each)
        lines.append([run.name, *(f"{numbers[name]:.4f}" for name in METRICS), str(run.missing), str(run.tied)])
    return lines


def comparison_lines(comparisons: Sequence[Comparison], first: str) -> list[list[str]]:
    lines = [[f"against {first}", "metric", "difference", "95 %", "p (randomisation)", "p (bootstrap)", "w/t/l"]]
    for one in comparisons:
        d = one.found
        lines.append([one.name, label(one.metric), f"{d.mean:+.4f}", f"{d.low:+.4f} … {d.high:+.4f}"])
        lines[-1] += [f"{d.p_randomisation:.4f}", f"{d.p_bootstrap:.4f}", f"{d.wins}/{d.ties}/{d.losses}"]
    return lines


def worst_lines(worst: Sequence[Worst]) -> list[list[str]]:
    """For a terminal: what stood first."""
    lines = [["run", "query", "asked", label(_WORST_BY), "of the first", "returned first", "an answer"]]
    for one in worst:
        numbers = [f"{one.value:.3f}", "" if one.first is None else f"{one.first:.3f}"]
        lines.append([one.run, one.query, one.asked, *numbers, next(iter(one.returned), "nothing"), one.answers[0]])
    return lines


def label(metric: str) -> str:
    kind, _, depth = metric.partition("_at_")
    return f"{LABELS[kind]}@{depth}"


def _report(compared: Compared, source: str, seed: int) -> str:
    first = compared.runs[0]
    parts = [f"# {' against '.join(run.name for run in reversed(compared.runs))}"]
    parts += [
        f"`{provenance.command()}`, commit {provenance.commit()}, seed {seed}. {source}: {len(first.each)} queries."
    ]
    parts += [markdown_table(run_lines(compared.runs))]
    if compared.comparisons:
        parts += ["Paired tests over queries; w/t/l: queries won, tied, lost."]
        parts += [markdown_table(comparison_lines(compared.comparisons, first.name))]
    for run in compared.runs:
        which = "worst queries" if run is first else f"queries at which it loses most to {first.name}"
        parts.append(f"## {run.name}: {which}")
        parts += [_told(one) for one in compared.worst if one.run == run.name] or ["None."]
    return "\n\n".join(parts) + "\n"


def _told(one: Worst) -> str:
    numbers = f"{label(_WORST_BY)} {one.value:.3f}" + ("" if one.first is None else f" (first run: {one.first:.3f})")
    lines = [f"**{one.query}**: {one.asked} — {numbers}", "- right: " + "; ".join(one.answers)]
    lines += ["- returned: " + ("; ".join(one.returned) or "nothing")]
    if one.returned_first is not None:
        lines += ["- the first run returned: " + ("; ".join(one.returned_first) or "nothing")]
    return "\n".join(lines)
