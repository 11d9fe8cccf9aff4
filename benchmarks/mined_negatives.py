"""What do mined negatives give? Three seeds of the demo; round 2 begun from the same round-1 checkpoint four ways.

    python benchmarks/mined_negatives.py --seeds 0,1,2

mined      two negatives a query from the top 20 of round 1's own search, after both filters (the demo's round 2)
random     two random documents a query, known positives left out: how much is merely more candidates?
in-batch   no explicit negatives, the same number of steps
in-batch+  no explicit negatives, as many steps as take the same time as `mined` (about 1.6 ×)

Writes benchmarks/results/mined_negatives.json and prints the table that docs/mined-negatives.md shows.
"""

import argparse
import json
import statistics
from pathlib import Path

from colmrl import provenance
from colmrl.config import Config
from colmrl.configure import load_config, replace
from colmrl.encoding import encode
from colmrl.evaluation.report import by_view, markdown_table
from colmrl.evaluation.run import judge
from colmrl.inputs import write_inputs
from colmrl.loop import loop
from colmrl.mining import mine
from colmrl.training.run import train
from colmrl.view import parse_views

VIEWS = parse_views("single@128,single@16,multi@128,multi@128x4")
ARMS = ("round 1", "mined", "random", "in-batch", "in-batch+")


def train_arm(config: Config, arm: str, folder: Path) -> None:
    """Round 2 from round 1's checkpoint, into `folder`; what is done already is kept."""
    if (folder / "checkpoint").exists():
        return
    round_1, steps = Path(config.output) / "round-1", config.train.max_steps
    triples = folder.with_name("random.jsonl")
    if arm == "random" and not triples.exists():
        mine(replace(config, mine={"k": 10_000, "sampling": "random"}), round_1 / "mining-store", triples)
    train(
        replace(
            config,
            output=str(folder),
            data={"triples": str(triples) if arm == "random" else None},
            train={
                "init_from": str(round_1 / "checkpoint"),
                "negatives": config.train.negatives if arm == "random" else 0,
                "max_steps": round(1.6 * steps) if arm == "in-batch+" else steps,
            },
        )
    )


def judge_arm(config: Config, folder: Path) -> tuple[dict[str, float], float]:
    """nDCG@5 a view, and the seconds that training took."""
    store = encode(config, folder / "checkpoint", config.data.eval_path or "", folder / "store")
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    return {v: x["ndcg_at_5"] for (_, v), x in by_view(judge(config, store, VIEWS)).items()}, last["train_runtime"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--work", type=Path, default=Path("outputs/mined-negatives"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/mined_negatives.json"))
    arguments = parser.parse_args()
    rows = []
    for seed in map(int, arguments.seeds.split(",")):
        output = arguments.work / f"seed-{seed}"
        config = write_inputs(load_config("demo", [f"output={output}", f"seed={seed}", "eval.views=[]"]))
        loop(config)
        for arm in ARMS:
            folder = output / {"round 1": "round-1", "mined": "round-2"}.get(arm, arm)
            train_arm(config, arm, folder)
            values, seconds = judge_arm(config, folder)
            print(seed, arm, values, f"{seconds:.0f} s", flush=True)
            rows += [
                {"seed": seed, "arm": arm, "view": v, "metric": "ndcg_at_5", "value": x, "train_s": round(seconds)}
                for v, x in values.items()
            ]
        content = {"command": provenance.command(), "commit": provenance.commit(), "rows": rows}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(content, indent=1))
    lines = [["round 2 with", *map(str, VIEWS), "training s"]]
    for arm in ARMS:
        cells = []
        for view in map(str, VIEWS):
            values = [row["value"] for row in rows if row["arm"] == arm and row["view"] == view]
            cells.append(f"{statistics.mean(values):.3f} ({min(values):.3f}–{max(values):.3f})")
        lines.append([arm, *cells, f"{statistics.median(row['train_s'] for row in rows if row['arm'] == arm):.0f}"])
    print(markdown_table(lines))


if __name__ == "__main__":
    main()
