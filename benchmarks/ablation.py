"""What does each part of the engine give? The demo's first round, one thing changed at a time, three seeds.

    python benchmarks/ablation.py --seeds 0,1,2 --jobs 2

Every arm trains a fresh tiny InternVL (full fine-tuning, batch 32, 300 steps) on the generated pictures and is judged
on 256 unseen ones; `base` has none of what the other arms have. `mined negatives` takes two of the top 20 that base's
own checkpoint finds, `random negatives` two random documents: how much is merely more candidates. `batch 128, same
pairs` has a quarter of the steps. A difference smaller than the seeds' spread is none.

Writes benchmarks/results/ablation.json and prints the table that docs/ablation.md shows.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from colmrl import provenance
from colmrl.config import Config
from colmrl.configure import load_config, replace

VIEWS = ("single@128", "single@16", "multi@128", "multi@128x8", "multi@128x4", "multi@16x4")
STEPS = 300
BIG = ["train.batch_size=128", "train.mini_batch_size=32"]
ARMS: dict[str, list[str]] = {
    "base": [],
    "batch 128 (GradCache), same pairs": [*BIG, f"train.max_steps={STEPS // 4}", "train.warmup_steps=10"],
    "bidirectional attention": ["model.attention=bidirectional"],
    "KL(single‖multi)": ["loss.self_distillation=1"],
    "random negatives": ["train.negatives=2"],
    "mined negatives": ["train.negatives=2"],
    "EMA 0.98": ["train.ema=0.98"],
    "budgets 8, 4": ["multi.budgets=[8,4]"],
    "batch 128 (GradCache), same steps": BIG,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("outputs/ablation"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ablation.json"))
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.seed is not None:
        run_seed(arguments.seed, arguments.work / f"seed-{arguments.seed}")
        return
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda seed: _apart(seed, arguments.work), seeds))
    rows = [
        row
        for seed in seeds
        for arm in ARMS
        for row in json.loads((arguments.work / f"seed-{seed}" / _slug(arm) / "rows.json").read_text())
    ]
    content = {"command": provenance.command(), "commit": provenance.commit(), "rows": rows}
    arguments.out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(table(rows))


def run_seed(seed: int, folder: Path) -> None:
    """All arms of one seed; what is done already is kept."""
    from colmrl.encoding import encode
    from colmrl.inputs import write_inputs
    from colmrl.mining import mine

    fixed = [f"output={folder}", f"seed={seed}", f"train.max_steps={STEPS}", "train.negatives=0", "eval.views=[]"]
    for arm, overrides in ARMS.items():
        out = folder / _slug(arm)
        if (out / "rows.json").exists():
            continue
        config = write_inputs(load_config("demo", [*fixed, *overrides]))
        triples = None
        if config.train.negatives:
            kind = "random" if arm.startswith("random") else "mined"
            store, triples = folder / "base" / "mining-store", folder / f"{kind}.jsonl"
            encode(config, folder / "base" / "checkpoint", config.data.path, store)
            if not triples.exists():
                how = {"k": 10_000, "sampling": "random"} if kind == "random" else {}
                mine(replace(config, mine=how), store, triples)
        run_arm(replace(config, output=str(out), data={"triples": str(triples) if triples else None}), arm, out)


def run_arm(config: Config, arm: str, out: Path) -> None:
    from colmrl.encoding import encode
    from colmrl.evaluation.report import by_view
    from colmrl.evaluation.run import judge
    from colmrl.training.run import train
    from colmrl.view import parse_views

    if not (out / "checkpoint").exists():
        train(config)
    store = encode(config, out / "checkpoint", config.data.eval_path or "", out / "store")
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    values = {view: x["ndcg_at_5"] for (_, view), x in by_view(judge(config, store, parse_views(VIEWS))).items()}
    print(config.seed, arm, values, flush=True)
    more = {"seed": config.seed, "arm": arm, "metric": "ndcg_at_5", "train_s": round(last["train_runtime"])}
    rows = [{**more, "view": view, "value": value} for view, value in values.items()]
    (out / "rows.json").write_text(json.dumps(rows, ensure_ascii=False))


def table(rows: list[dict]) -> str:
    from colmrl.evaluation.report import markdown_table

    lines = [["arm", *VIEWS, "training s"]]
    for arm in ARMS:
        of_arm = [row for row in rows if row["arm"] == arm]
        cells = []
        for view in VIEWS:
            values = [row["value"] for row in of_arm if row["view"] == view]
            cells.append(f"{statistics.mean(values):.3f} ({min(values):.3f}–{max(values):.3f})")
        lines.append([arm, *cells, f"{statistics.median(row['train_s'] for row in of_arm):.0f}"])
    return markdown_table(lines)


def _apart(seed: int, work: Path) -> None:
    command = [sys.executable, __file__, "--seed", str(seed), "--work", str(work)]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def _slug(arm: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in arm)


if __name__ == "__main__":
    main()
