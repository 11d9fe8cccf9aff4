"""A training step, an epoch and its memory beside sentence-transformers' and colpali-engine's trainers.

    python benchmarks/run.py train              # --quick: one repetition of a few steps; --only CASE …

Same random weights (ours, exported for each), same pairs in the same order, same batch, optimiser, schedule, and loss:
InfoNCE in both directions (at every dim of a single head), which both multi-vector libraries have in one; the other is
added to theirs. fp32 on one thread, dropout off. Every tool reads and prepares its batches itself.

    pages, multi    tiny Qwen2.5-VL, pages of many sizes, one 128-d vector a token; LoRA on the language model
    pages, single   the same, single@128, 64, 32, 16 (MatryoshkaLoss); full fine-tuning, as below
    texts, single   BERT as wide and deep as MiniLM-L6, texts of 8 to 160 words, single@384, 128, 64

Each run in a process of its own, tools taken in turn. CPU seconds: a step (its batch is there), an epoch with loading
batches (warm, and the first, with what a tool does once), medians over the runs; peak memory beyond what the process
held after importing. `loss_difference`: the largest of any step to ours.

Writes benchmarks/results/train.json and prints its table.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import peers
from train_cases import prepare

from colmrl import provenance

CASES: dict[str, dict[str, Any]] = {
    "pages, multi": {"family": "qwen2_5_vl", "head": "multi", "dims": [128], "tuning": "lora"},
    "pages, single": {"family": "qwen2_5_vl", "head": "single", "dims": [128, 64, 32, 16], "tuning": "full"},
    "texts, single": {"family": "bert", "head": "single", "dims": [384, 128, 64], "tuning": "full"},
}
PEERS = {"single": ("sentence-transformers",), "multi": ("sentence-transformers", "colpali-engine")}
CACHED = "colmrl, tower_cache"  # the frozen tower's features kept on disk: made in the first epoch, read in the others
EPOCHS = 2
NUMBERS = ("step_s", "epoch_s", "first_epoch_s", "peak_mib")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/train.json"))
    arguments = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    for name in arguments.only:
        case: dict[str, Any] = CASES[name] | (
            {"batch": 4, "pairs": 8} if arguments.quick else {"batch": 16, "pairs": 64}
        )
        case["epochs"] = EPOCHS
        with tempfile.TemporaryDirectory() as temporary:
            prepare(Path(temporary), case, PEERS[case["head"]])
            rows += compare(name, case, Path(temporary), 1 if arguments.quick else arguments.repeats)
    print(table(rows))
    machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, one thread"
    content = {"command": provenance.command(), "commit": provenance.commit(), "machine": machine, "rows": rows}
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")


def compare(name: str, case: dict[str, Any], folder: Path, repeats: int) -> list[dict[str, Any]]:
    tools = ("colmrl", *([CACHED] if case["tuning"] == "lora" else []), *PEERS[case["head"]])
    runs: dict[str, list[dict[str, Any]]] = {tool: [] for tool in tools}
    for _ in range(repeats):
        for tool in tools:
            runs[tool].append(run_apart(tool, folder))
    ours, pairs, rows = runs["colmrl"], case["batch"] * case["steps"], []
    for tool in tools:
        row: dict[str, Any] = {"case": name, "tool": tool, "version": version(tool)}
        row |= {number: statistics.median(run[number] for run in runs[tool]) for number in NUMBERS}
        row["pairs_per_s"] = pairs / row["epoch_s"]
        row |= {f"{number}_ratio": row[number] / statistics.median(run[number] for run in ours) for number in NUMBERS}
        losses = runs[tool][0]["losses"]
        row["loss_difference"] = max(abs(a - b) for a, b in zip(losses, ours[0]["losses"], strict=True))
        rows.append(row | {"losses": [round(loss, 6) for loss in losses]})
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    return rows


def run_apart(tool: str, folder: Path) -> dict[str, Any]:
    here = Path(__file__).parent
    command: list[str | Path] = [sys.executable, here / "train_peers.py", tool, folder]
    if tool == "colpali-engine":
        command = [peers.python(f"{tool}, training"), here / "train_colpali_peer.py", folder]
    threads = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads)
    if done.returncode:
        raise RuntimeError(f"{tool}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def version(tool: str) -> str:
    if tool == "colpali-engine":
        return next(one for one in peers.PEERS[tool].bare if one.startswith(tool)).split("==")[1]
    return metadata.version(tool.split(",")[0])


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| case | tool | step s | epoch s (pairs/s) | first epoch s | peak MiB | largest difference of loss |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        step, epoch, first, peak = (f"{row[n]:.3g} ({row[f'{n}_ratio']:.2f}×)" for n in NUMBERS)
        epoch = epoch.replace(")", f", {row['pairs_per_s']:.0f}/s)")
        cells = [row["case"], f"{row['tool']} {row['version']}", step, epoch, first, peak]
        lines.append(f"| {' | '.join(cells)} | {row['loss_difference']:.1e} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
