"""What rerankers add on pictures: the sample set's generator knows which pictures satisfy a caption; judgements are
made incomplete (each query keeps one of its answers, drawn), and retriever and rerankers are trained on those.

    python benchmarks/run.py rerank                                   # needs about two CPU hours
    python benchmarks/run.py rerank --only pointwise                  # 20 CPU minutes
    python benchmarks/run.py rerank --only "listwise relevance" --steps 600        # 10 CPU minutes
    python benchmarks/run.py rerank --only "listwise letters"         # 25 CPU minutes, as "listwise numbers"
    python benchmarks/run.py rerank --steps 600 --queries 64          # less of both

A tiny InternVL retriever, 400 steps (the demo's round 1). Rerankers: pointwise (classifier on the mean of the query's
tokens), listwise by what is read off the candidates (rerank.relevance), by letters and by numbers; all from the
retriever's weights, first against other queries' positives alone, then also mined ones; the pictures themselves in the
prompt; each query's own hard negatives are mined by the retriever (single@128, relative margin 0.05). Letters and
numbers go on from the first stage of what is read off the candidates: they learn names and where to look
(rerank.naming, rerank.attention), with short lists among the full ones, then twice on full ones. Two tables:

1. 256 new queries, the 20 best of single@16: the retriever alone, and reordered; nDCG@5 and seconds a query.
2. As a filter of mining (mine.filters: teacher): of the pictures that mining without filters takes for negatives though
   they satisfy the caption, the share that the reranker's margin removes, and what else it removes.

Writes benchmarks/results/rerank.json.
"""

import argparse
import json
import os
import platform
import random
from pathlib import Path

from false_negatives import incomplete, read_truth

from colmrl import provenance
from colmrl.config import Config
from colmrl.configure import load_config, replace

COMMON = ["train.adam_beta2=0.98", "train.weight_decay=0.01", "train.warmup_steps=30", "train.schedule=linear"]
COMMON += ["rerank.queries=32", 'rerank.instruction=""', "model.padding_side=left", "train.learning_rate=1e-3"]

LISTWISE = ["task=listwise", "rerank.relevance=1", "train.batch_size=8", "train.negatives=8", "train.max_steps=900"]
ANSWERS = [*LISTWISE, "rerank.naming=3", "rerank.attention=1", "train.learning_rate=2e-3"]
NUMBERS = ["rerank.identifiers=numbers"]
SHORT = ["rerank.short_lists=true", "train.batch_size=16"]  # short lists among the full ones
LOOKING = [*SHORT, "rerank.naming=1", "rerank.attention=2", "train.max_steps=700"]
# what is trained, and the margins at which it filters
RERANKERS: dict[str, tuple[list[str], tuple[float, ...]]] = {
    "pointwise": (
        [
            *("task=pointwise", "rerank.pooling=query", "rerank.loss=softmax"),
            *("train.batch_size=8", "train.negatives=7", "train.max_steps=900"),
        ],
        (0.0, 0.5, 0.9, 0.99),
    ),
    "listwise relevance": ([*LISTWISE, "rerank.answer=relevance"], (0.0, 0.5)),
    "listwise letters": ([*ANSWERS, *LOOKING], (0.0, 0.5)),
    "listwise numbers": ([*ANSWERS, *NUMBERS, *LOOKING], (0.0, 0.5)),
}
# before that: from the retriever's weights, without mined negatives
_FIRST = ["data.triples=null", "train.schedule=constant"]
FIRST = {
    "pointwise": [*_FIRST, "train.max_steps=300"],
    "listwise relevance": [*_FIRST, "train.batch_size=16", "rerank.candidates=8", "train.max_steps=350"],
}
# answers by identifier go on from the first stage of what knows which candidate fits; then, before the last stage
BEFORE_LAST = {
    "short": [*SHORT, "train.max_steps=500"],
    "full": ["train.learning_rate=1e-3", "train.max_steps=250"],
    "fuller": ["train.max_steps=400"],
    "looking": LOOKING,
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--retriever-steps", type=int, default=400)
    parser.add_argument("--steps", type=int, help="of each reranker's last stage; without: its own")
    parser.add_argument("--queries", type=int, default=256, help="that are judged, and mined for")
    parser.add_argument("--only", default=",".join(RERANKERS))
    parser.add_argument("--work", type=Path, default=Path("outputs/rerank"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/rerank.json"))
    asked = parser.parse_args(argv)
    folder = asked.work / f"seed-{asked.seed}"
    config, truth = prepared(folder, asked.seed, asked.retriever_steps)
    rows, steps = [], [] if asked.steps is None else [f"train.max_steps={asked.steps}"]
    for name in asked.only.split(","):
        given, margins = RERANKERS[name]
        checkpoint, train_s = folder / "checkpoint", 0.0
        for stage, settings in [*stages_before(name), (name, [*given, *steps])]:
            run, before = folder / stage.replace(" ", "-"), f"train.init_from={checkpoint}"
            checkpoint, seconds = trained(config, run, [*settings, before])
            train_s += seconds
        rows += reordered(config, folder, name, checkpoint, asked.queries, bool(rows))
        rows += filtering(config, folder, name, checkpoint, margins, truth, asked.queries)
        rows.append({"case": "training", "system": name, "metric": "train_s", "value": train_s})
    machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    head = {"command": provenance.command(), "commit": provenance.commit(), "machine": machine, "seed": asked.seed}
    asked.out.write_text(json.dumps({**head, "steps": asked.steps, "rows": rows}, indent=1) + "\n")
    print(table(rows))


def stages_before(name: str) -> list[tuple[str, list[str]]]:
    """Name and settings of what is trained before `name` itself, each from the weights of the one before."""
    answers = name not in FIRST
    start = "listwise relevance" if answers else name
    first = (f"{start}-first", [*RERANKERS[start][0], *FIRST[start]])
    given = [*ANSWERS, *(NUMBERS if name == "listwise numbers" else [])]
    later = [(f"{name}-{stage}", [*given, *more]) for stage, more in BEFORE_LAST.items()]
    return [first, *(later if answers else [])]


def prepared(folder: Path, seed: int, steps: int) -> tuple[Config, dict[str, list[str]]]:
    """Incomplete data, the retriever, its stores of both parts, and triples; what is done already is kept."""
    from colmrl.encoding import encode
    from colmrl.inputs import write_inputs
    from colmrl.mining import mine
    from colmrl.training.run import train

    fixed = [f"output={folder}", f"seed={seed}", f"train.max_steps={steps}", "train.negatives=0", "device=cpu"]
    config = write_inputs(load_config("demo", [*fixed, "threads=1", "train.eval_steps=null"]))
    truth, data = read_truth(Path(config.data.path)), folder / "incomplete"
    if not data.exists():
        incomplete(Path(config.data.path), truth, seed, data)
    config = replace(config, data={"path": str(data), "eval_path": config.data.eval_path})
    if not (folder / "checkpoint").exists():
        train(config)
    for path, name in ((str(data), "store"), (config.data.eval_path or "", "test-store")):
        encode(config, folder / "checkpoint", path, folder / name)
    if not (folder / "triples.jsonl").exists():
        filters = load_config(None, ["mine.filters=[{relative_margin: 0.05}]"]).mine.filters
        mining = {"view": "single@128", "k": 20, "negatives": 8, "filters": filters}
        mine(replace(config, mine=mining), folder / "store", folder / "triples.jsonl")
    return config, truth


def trained(config: Config, folder: Path, given: list[str]) -> tuple[Path, float]:
    """The reranker's checkpoint, and the seconds that its training took, now or before."""
    from colmrl.training.run import train

    checkpoint = folder / "checkpoint"
    if not checkpoint.exists():
        data, triples = config.data.path, folder.parent / "triples.jsonl"
        fixed = [f"output={folder}", f"seed={config.seed}", f"model.backbone={config.model.backbone}", "device=cpu"]
        fixed += [f"data.path={data}", f"data.triples={triples}", f"data.eval_path={config.data.eval_path}"]
        train(load_config(None, [*fixed, *COMMON, *given, "threads=1"]))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return checkpoint, next(line["train_runtime"] for line in reversed(lines) if "train_runtime" in line)


def reordered(config: Config, folder: Path, name: str, checkpoint: Path, queries: int, first_known: bool) -> list[dict]:
    """The 20 best of single@16, before (once) and after."""
    from colmrl.evaluation.rerank_report import judge_rerankers

    out = folder / f"judged-{name.replace(' ', '-')}-{queries}"
    store = str(folder / "test-store")
    rerank = {"mode": "retrieval", "store": store, "view": "single@16", "top_k": 20, "queries": queries}
    judge_rerankers(replace(config, rerank=rerank), [str(checkpoint)], out)
    found = json.loads((out / "results.json").read_text())["rows"]
    beside = ("random order", "BM25", "first stage", "best possible")
    kept = [row for row in found if row["system"] not in beside or not first_known]
    names = {"first stage": "retriever alone"}
    return [{"case": "reordered", "system": names.get(row["system"], row["system"]), **row_number(row)} for row in kept]


def row_number(row: dict) -> dict:
    return {"metric": row["metric"], "value": row["value"], "queries": row["queries"]}


def filtering(
    config: Config,
    folder: Path,
    name: str,
    checkpoint: Path,
    margins: tuple[float, ...],
    truth: dict[str, list[str]],
    queries: int,
) -> list[dict]:
    """Mined without a filter, and with the reranker's margin: false and true negatives."""
    from colmrl.mining import mine

    part = folder / f"incomplete/qrels/part{queries}.tsv"
    if not part.exists():
        head, *lines = (folder / "incomplete/qrels/train.tsv").read_text().splitlines(keepends=True)
        part.write_text(head + "".join(random.Random(0).sample(lines, min(queries, len(lines)))))
    rows, counts = [], {}
    arms = {"nothing": "[]"}
    arms |= {f"{name}, relative_margin {margin:g}": arm(checkpoint, margin) for margin in margins}
    for label, filters in arms.items():
        out = folder / f"mined-{queries}-{label.replace(' ', '-').replace(',', '')}.jsonl"
        if not out.exists():
            parsed = load_config(None, [f"mine.filters={filters}"]).mine.filters
            mining = {"view": "single@128", "k": 20, "negatives": 20, "filters": parsed}
            mine(replace(config, mine=mining, data={"train_split": part.stem}), folder / "store", out)
        kept = [(row["query_id"], name) for row in map(json.loads, out.open()) for name in row["neg_ids"]]
        false = sum(document in truth[query] for query, document in kept)
        counts[label] = (false, len(kept) - false)
    false, right = (max(1, count) for count in counts.pop("nothing"))
    for label, (false_left, right_left) in counts.items():
        rows += [
            {"case": "filter", "system": label, "metric": "false_negatives_removed", "value": 1 - false_left / false},
            {"case": "filter", "system": label, "metric": "true_negatives_removed", "value": 1 - right_left / right},
            {"case": "filter", "system": label, "metric": "false_share_before", "value": false / (false + right)},
            {
                "case": "filter",
                "system": label,
                "metric": "false_share_after",
                "value": false_left / max(1, false_left + right_left),
            },
        ]
    return rows


def arm(checkpoint: Path, margin: float) -> str:
    return f"[{{teacher: {{reranker: {json.dumps(str(checkpoint))}, relative_margin: {margin}}}}}]"


def table(rows: list[dict]) -> str:
    from colmrl.evaluation.report import markdown_table

    parts = []
    for case, columns in (
        ("reordered", ("ndcg_at_5", "ndcg_at_10", "mrr_at_10", "recall_at_10", "seconds_per_query")),
        ("filter", ("false_negatives_removed", "true_negatives_removed", "false_share_before", "false_share_after")),
    ):
        values: dict[str, dict[str, float]] = {}
        for row in rows:
            if row["case"] == case:
                values.setdefault(row["system"], {})[row["metric"]] = row["value"]
        lines = [[case, *columns]]
        lines += [[name, *(f"{of[c]:.4f}" if c in of else "" for c in columns)] for name, of in values.items()]
        parts.append(markdown_table(lines))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
