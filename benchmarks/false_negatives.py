"""How many mined "negatives" are answers that nobody marked? The sample set's generator knows which pictures satisfy a
caption; the judgements are made incomplete (each query keeps one of its answers, drawn), and a model trained on those.

    python benchmarks/run.py false_negatives

Tiny InternVL, 400 steps (the demo's round 1) on 1,200 pictures and 2,400 captions; mined at single@128, 20 deep, four
negatives a query, with each filter alone. `teacher: multi@128` is the same model's other head.

Writes benchmarks/results/false_negatives.json and prints the table that docs/mining.md shows.
"""

import argparse
import json
import os
import platform
import random
import statistics
from pathlib import Path

from colmrl import provenance
from colmrl.config import Config
from colmrl.configure import load_config, replace

# what is mined with: mine.filters, and other settings of the section
ARMS: dict[str, tuple[str, dict]] = {
    "nothing": ("[]", {}),
    "duplicates": ("[{duplicates: true}]", {}),
    "range_min 5": ("[{range_min: 5}]", {}),
    "max_score 0.8": ("[{max_score: 0.8}]", {}),
    "absolute_margin 0.05": ("[{absolute_margin: 0.05}]", {}),
    "relative_margin 0": ("[{relative_margin: 0}]", {}),
    "relative_margin 0.05": ("[{relative_margin: 0.05}]", {}),
    "relative_margin 0.1": ("[{relative_margin: 0.1}]", {}),
    "relative_margin 0.2": ("[{relative_margin: 0.2}]", {}),
    "teacher: multi@128, relative_margin 0.05": (
        "[{teacher: {store: STORE, view: multi@128, relative_margin: 0.05}}]",
        {},
    ),
    "nothing, random of 20": ("[]", {"sampling": "random"}),
    "relative_margin 0.05, random of 20": ("[{relative_margin: 0.05}]", {"sampling": "random"}),
    "random documents": ("[]", {"sampling": "random", "k": 10_000}),
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--work", type=Path, default=Path("outputs/false-negatives"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/false_negatives.json"))
    arguments = parser.parse_args(argv)
    rows = []
    for seed in map(int, arguments.seeds.split(",")):
        rows += run_seed(seed, arguments.steps, arguments.work / f"seed-{seed}")
    machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    content = {"command": provenance.command(), "commit": provenance.commit(), "machine": machine, "rows": rows}
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")
    print(table(rows))


def run_seed(seed: int, steps: int, folder: Path) -> list[dict]:
    """Train, encode and mine every way; what is done already is kept."""
    from colmrl.encoding import encode
    from colmrl.inputs import write_inputs
    from colmrl.mining import mine
    from colmrl.training.run import train

    fixed = [f"output={folder}", f"seed={seed}", f"train.max_steps={steps}", "train.negatives=0", "device=cpu"]
    config = write_inputs(load_config("demo", fixed))
    truth, data = read_truth(Path(config.data.path)), folder / "incomplete"
    if not data.exists():
        incomplete(Path(config.data.path), truth, seed, data)
    config = replace(config, data={"path": str(data)})
    if not (folder / "checkpoint").exists():
        train(config)
    store = encode(config, folder / "checkpoint", str(data), folder / "store")
    rows = []
    for number, (arm, (filters, how)) in enumerate(ARMS.items()):
        out = folder / f"triples-{number}.jsonl"
        if not out.exists():
            mine(mined_with(config, filters.replace("STORE", str(store)), how), store, out)
        rows.append({"case": arm, "tool": "colmrl", "seed": seed, **counted(out, truth)})
        print(rows[-1], flush=True)
    return rows


def mined_with(config: Config, filters: str, how: dict) -> Config:
    parsed = load_config(None, [f"mine.filters={filters}"]).mine.filters
    return replace(config, mine={"view": "single@128", "k": 20, "negatives": 4, "filters": parsed, **how})


def read_truth(data: Path) -> dict[str, list[str]]:
    """Query → every picture that satisfies it."""
    truth: dict[str, list[str]] = {}
    for line in (data / "qrels/train.tsv").read_text().splitlines()[1:]:
        query, document, _ = line.split("\t")
        truth.setdefault(query, []).append(document)
    return truth


def incomplete(data: Path, truth: dict[str, list[str]], seed: int, out: Path) -> None:
    """The same data with one answer a query."""
    rng = random.Random(seed)
    partial = out.with_name("incomplete.partial")
    (partial / "qrels").mkdir(parents=True, exist_ok=True)
    for name in ("corpus.jsonl", "queries.jsonl", "images"):
        (partial / name).unlink(missing_ok=True)
        (partial / name).symlink_to((data / name).resolve())
    lines = [f"{query}\t{rng.choice(answers)}\t1\n" for query, answers in truth.items()]
    (partial / "qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    partial.rename(out)


def counted(triples: Path, truth: dict[str, list[str]]) -> dict[str, float]:
    """What became of the queries, each of which has one triple."""
    rows = [json.loads(line) for line in triples.open()]
    answers = [name in truth[row["query_id"]] for row in rows for name in row["neg_ids"]]
    unmarked = [row for row in rows if len(truth[row["query_id"]]) > 1]
    return {
        "negatives": len(answers),
        "truly_relevant": sum(answers) / len(answers),
        "queries_with_unmarked_answers": len(unmarked) / len(rows),
        "queries_without_negatives": sum(not row["neg_ids"] for row in rows) / len(rows),
        "mean_score_to_positive": statistics.mean(
            score - row["pos_score"] for row in rows for score in row["neg_scores"]
        ),
    }


def table(rows: list[dict]) -> str:
    from colmrl.evaluation.report import markdown_table

    lines = [["filters", "negatives that are answers", "each seed", "negatives", "queries left without"]]
    for arm in ARMS:
        of = [row for row in rows if row["case"] == arm]
        shares = [row["truly_relevant"] for row in of]
        lines.append(
            [
                arm,
                f"{statistics.mean(shares):.1%}",
                ", ".join(f"{share:.1%}" for share in shares),
                f"{statistics.mean(row['negatives'] for row in of):,.0f}",
                f"{statistics.mean(row['queries_without_negatives'] for row in of):.1%}",
            ]
        )
    return markdown_table(lines)


if __name__ == "__main__":
    main()
