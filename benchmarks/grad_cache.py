"""What a step of 64 queries takes: all at once, and by GradCache in smaller and smaller chunks.

    python benchmarks/grad_cache.py

Tiny InternVL, both heads at four dims, one explicit negative a query (64 queries, 128 documents a step), full
fine-tuning in fp32 on one CPU thread; every case in a process of its own, cases taken in turn, medians of five.
Peak memory: the most resident memory during the step beyond what the process held before it (Linux; the mark is reset
through /proc/self/clear_refs). Ratios are to the plain step. With --family, --batch and --backbone other models.

Writes benchmarks/results/grad_cache.json and prints the table that docs/training.md shows.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from workers import resident

from colmrl import provenance

CASES = {"plain": None, "GradCache, 32 records": 32, "GradCache, 16 records": 16, "GradCache, 8 records": 8}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="internvl")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/grad_cache.json"))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(Path(arguments.measure), arguments.batch, int(os.environ["MINI"]) or None)))
        return
    found: dict[str, list[dict[str, float]]] = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory() as folder:
        prepare(arguments.family, Path(folder))
        for _ in range(arguments.repeats):
            for case, mini in CASES.items():
                command = [sys.executable, __file__, "--measure", folder, "--batch", str(arguments.batch)]
                environment = os.environ | {"MINI": str(mini or 0), "OMP_NUM_THREADS": "1"}
                done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                found[case].append(json.loads(done.stdout.splitlines()[-1]))
    rows = [
        {"case": f"{arguments.family}, batch {arguments.batch}", "tool": case}
        | {name: statistics.median(run[name] for run in runs) for name in ("peak_mb", "step_s")}
        for case, runs in found.items()
    ]
    for row in rows:
        row |= {f"{name}_ratio": row[name] / rows[0][name] for name in ("peak_mb", "step_s")}
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
    machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    content = {"command": provenance.command(), "commit": provenance.commit(), "machine": machine, "rows": rows}
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")


def prepare(family: str, folder: Path) -> None:
    from colmrl.data.sample import write_sample
    from colmrl.models.tiny import write_tiny_model

    write_tiny_model(family, folder / "model")
    write_sample(folder / "data", 0, train_families=40, test_families=2)


def measure(folder: Path, batch_size: int, mini: int | None) -> dict[str, float]:
    """One step's peak memory and seconds, after a step that is not counted."""
    import contextlib

    import torch

    from colmrl.configure import load_config
    from colmrl.data.reading import read_training
    from colmrl.models.retriever import Retriever
    from colmrl.training.batches import Collator
    from colmrl.training.grad_cache import cached_step
    from colmrl.training.objective import Objective
    from colmrl.training.pool import make_pool

    torch.set_num_threads(1)
    config = load_config(None, [f"model.backbone={folder}/model", f"data.path={folder}/data/train"])
    examples, positives = read_training(config.data, config.show)
    documents = list(examples.parts[0].documents)
    some = [examples[i * len(examples) // batch_size] for i in range(batch_size)]
    some = [type(e)(e.query, e.positive, (documents[i],)) for i, e in enumerate(some)]
    model, objective = Retriever.create(config), Objective(config)
    batch = Collator(model.inputs, positives, mini)(some)

    def loss_of(embedded):
        return objective.total(objective(make_pool(embedded, batch, ())), [])

    def step() -> None:
        if mini is None:
            loss_of(model(*batch["chunks"])).backward()
        else:
            backward = torch.Tensor.backward
            cached_step(model, batch["chunks"], loss_of, backward, backward, contextlib.nullcontext)

    model(*batch["chunks"][:1]).single.sum().backward()  # gradients and caches are there before memory is measured
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    start = time.perf_counter()
    step()
    return {"step_s": time.perf_counter() - start, "peak_mb": (resident("VmHWM") - before) / 1e3}


if __name__ == "__main__":
    main()
