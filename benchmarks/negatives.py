"""What do mined negatives give on real data? MiniLM on SciFact, LoRA, one epoch from the same weights four ways.

    python benchmarks/run.py negatives --model DIR/all-MiniLM-L6-v2 --data DIR/scifact

in-batch         no explicit negatives
random           two random documents a query, known answers left out
top              the two best of the model's own search, known answers left out: nothing else filtered
positive-aware   the two best that score at most 95% of the (lowest) positive, duplicates left out: mining's defaults

Recipe minilm-scifact with documents of 96 tokens, batches of 16, the frozen weights in bf16, and no masking by score in
the loss, so that what is mined stands for itself. Judged on all 5,183 documents and 300 test queries. Every run in a
process of its own with one thread.

Writes benchmarks/results/negatives.json and prints the table that docs/mining.md shows.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from colmrl import provenance
from colmrl.config import Config
from colmrl.configure import load_config, replace

VIEWS = ("single@384", "single@128")
# how each arm mines: None has no explicit negatives
ARMS: dict[str, dict | None] = {
    "in-batch": None,
    "random": {"k": 10_000, "sampling": "random", "filters": ()},
    "top": {"filters": ()},
    "positive-aware": {},
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="/work/shared/models/all-MiniLM-L6-v2")
    parser.add_argument("--data", default="/work/shared/data/scifact")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--work", type=Path, default=Path("outputs/negatives"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/negatives.json"))
    parser.add_argument("--run", nargs=2, metavar=("SEED", "ARM"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.run:
        seed, arm = arguments.run
        run_arm(settings(arguments.model, arguments.data, int(seed)), arm, arguments.work)
        return
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    runs = [(seeds[0], "zero-shot"), *((seed, arm) for seed in seeds for arm in ARMS)]
    rows = []
    for seed, arm in runs:
        done = arguments.work / f"{slug(seed, arm)}.json"
        if not done.exists():
            command = [sys.executable, __file__, "--model", arguments.model, "--data", arguments.data]
            command += ["--work", str(arguments.work), "--run", str(seed), arm]
            subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        rows += json.loads(done.read_text())
        machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
        content = {"command": provenance.command(), "commit": provenance.commit(), "machine": machine, "rows": rows}
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")
    print(table(rows))


def settings(model: str, data: str, seed: int) -> Config:
    fixed = [f"model.backbone={model}", f"data.path={data}", f"seed={seed}", "threads=1", "device=cpu"]
    fixed += ["model.dtype=bf16", "model.max_document_tokens=96", "loss.false_negative_margin=null"]
    fixed += ["train.epochs=1", "train.batch_size=16", "train.negatives=2", "mine.negatives=2"]
    return load_config("minilm-scifact", [*fixed, f"eval.views=[{','.join(VIEWS)}]"])


def run_arm(config: Config, arm: str, work: Path) -> None:
    """Train, encode and judge; the rows go to `work`. The first run leaves the store that all of them mine from."""
    from colmrl.encoding import encode
    from colmrl.evaluation.run import judge
    from colmrl.mining import mine, read_report
    from colmrl.training.run import train
    from colmrl.view import parse_views

    folder, triples, counts = work / slug(config.seed, arm), None, {}
    how = ARMS.get(arm)
    if how is not None:
        triples = work / f"{slug(config.seed if arm == 'random' else 0, arm)}.jsonl"
        if not triples.exists():
            mine(replace(config, mine=how), work / slug(0, "zero-shot") / "store", triples)
        counts = read_report(triples)["counts"]
    steps = {"max_steps": 0} if arm == "zero-shot" else {}
    negatives = 2 if triples else 0
    train_config = replace(config, output=str(folder), train={**steps, "negatives": negatives})
    checkpoint = folder / "checkpoint"
    if not checkpoint.exists():
        train(replace(train_config, data={"triples": str(triples) if triples else None}))
    trained_s = time.process_time()
    store = encode(config, checkpoint, config.data.path, folder / "store")
    judged = judge(config, store, parse_views(VIEWS))
    values = {row["view"]: row["value"] for row in judged if row["metric"] == "ndcg_at_10"}
    print(config.seed, arm, values, f"{time.process_time():.0f} CPU s", flush=True)
    more = {"case": arm, "tool": "colmrl", "seed": config.seed, "metric": "ndcg_at_10", "mined": counts}
    rows = [{**more, "view": view, "value": value, "train_cpu_s": round(trained_s)} for view, value in values.items()]
    (work / f"{slug(config.seed, arm)}.json").write_text(json.dumps(rows))


def table(rows: list[dict]) -> str:
    from colmrl.evaluation.report import markdown_table

    lines = [["trained with", *(f"nDCG@10 {view}" for view in VIEWS), "each seed, single@384"]]
    for arm in ("zero-shot", *ARMS):
        cells = []
        for view in VIEWS:
            values = [row["value"] for row in rows if row["case"] == arm and row["view"] == view]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.4f}{spread}")
        each = ", ".join(f"{row['value']:.4f}" for row in rows if row["case"] == arm and row["view"] == VIEWS[0])
        lines.append([arm, *cells, each])
    return markdown_table(lines)


def slug(seed: int, arm: str) -> str:
    return f"{arm}-{seed}"


if __name__ == "__main__":
    main()
