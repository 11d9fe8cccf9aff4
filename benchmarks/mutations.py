"""Break one thing at a time and see that a test finds it; docs/training.md shows the table.

    python benchmarks/mutations.py [WORD …]        only those whose name has one of the words

Each mutation is an exact replacement in a copy of the tree; its test must pass before and fail after. Takes minutes.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DISTRIBUTED = "tests/training/test_distributed.py -k"
CACHE = "tests/training/test_grad_cache.py -k"
OBJECTIVE = "tests/training/test_objective.py -k"
# what is broken, file, text, in its place, the test that must notice
MUTATIONS = [
    ("gathered rows keep one's own gradient only", "training/gather.py", "dist.all_reduce(summed)", "pass",
     f"{DISTRIBUTED} plain"),
    ("gathered rows carry no gradient at all", "training/gather.py",
     "_Gather.apply(rows, counts) if rows.requires_grad else _gathered(rows, counts)", "_gathered(rows, counts)",
     f"{DISTRIBUTED} plain"),
    ("explicit negatives of other processes are lost", "training/pool.py", "candidates=_gather(local),",
     "candidates=_gather(Side(documents.select(mine), {s: m.select(mine) for s, m in local.budgets.items()})),",
     f"{DISTRIBUTED} plain"),
    ("a process's negatives are looked for among the first process's", "training/pool.py",
     "negatives + starts[rank()]", "negatives", f"{DISTRIBUTED} plain"),
    ("an uneven last batch counts as an even one", "training/pool.py", "share=count * processes() / sum(numbers)",
     "share=1.0", f"{DISTRIBUTED} plain"),
    ("learnt temperatures are not averaged over processes", "training/trainer.py",
     "p.grad = sum_over_processes(p.grad) / processes()", "pass", f"{DISTRIBUTED} plain"),
    ("a cached window of accumulation is not averaged", "training/trainer.py",
     " / self.current_gradient_accumulation_steps", "", f"{DISTRIBUTED} own"),
    ("a process with fewer chunks stops early under FSDP", "training/grad_cache.py",
     "passes = passes or len(chunks)", "passes = len(chunks)", f"{DISTRIBUTED} sharded"),
    ("dropout draws anew when replayed", "training/grad_cache.py", "torch.set_rng_state(state[0])", "pass",
     f"{CACHE} dropout"),
    ("the multi head's cached gradient is dropped", "training/grad_cache.py",
     "zip(tensors(again), tensors(part), strict=True)", "[(tensors(again)[0], tensors(part)[0])]",
     f"{CACHE} 'chunks_of'"),
    ("the last chunk is not replayed", "training/grad_cache.py", "zip(padded, states, parts, strict=True)",
     "zip(padded[:-1], states, parts, strict=False)", f"{CACHE} 'chunks_of'"),
    ("records sorted into chunks are not put back", "training/pool.py", 'place = batch["order"]',
     'place = batch["order"].sort().values', f"{OBJECTIVE} whatever"),
    ("positives that answer another query too are its negatives", "training/pool.py",
     'known=_among(batch["known"], keys)', 'known=_among(batch["known"], keys) & False', f"{OBJECTIVE} formula"),
    ("the same in the other direction", "training/objective.py", "        known = pool.known_queries\n",
     "        known = pool.known_queries & False\n", f"{OBJECTIVE} formula"),
    ("a query is its own negative among queries", "training/objective.py",
     "_marked(pool.known[:, pool.answers], pool.own)", "pool.known[:, pool.answers] & False", f"{OBJECTIVE} formula"),
    ("a budget scores with all vectors", "training/objective.py", "documents.budgets.get(view.vectors or 0, ",
     "documents.budgets.get(0, ", f"{OBJECTIVE} formula"),
    ("pooled vectors are not normalised", "reduction.py", "MultiVectors(truncate(sums, sums.shape[1]), ",
     "MultiVectors(sums, ", f"{OBJECTIVE} pooling"),
    ("dims are cut but not normalised", "scoring.py", "return F.normalize(vectors[..., :dim], dim=-1)",
     "return vectors[..., :dim]", f"{OBJECTIVE} formula"),
    ("MaxSim's gradient goes to another document's vector", "scoring.py", " + documents.offsets[:-1, None]", "",
     "tests/test_scoring.py -k gradient"),
]  # fmt: skip


def main(words: list[str]) -> None:
    print("| broken | found by |\n|---|---|")
    missed = []
    for name, file, old, new, test in MUTATIONS:
        if words and not any(word in name for word in words):
            continue
        with tempfile.TemporaryDirectory() as folder:
            for part in ("colmrl", "tests", "pyproject.toml"):
                (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, Path(folder) / part)
            before = passes(test, folder)
            path = Path(folder) / "colmrl" / file
            text = path.read_text()
            assert text.count(old) == 1, f"{name}: {old!r} stands {text.count(old)} times in {file}"
            path.write_text(text.replace(old, new))
            found = before and not passes(test, folder)
        print(f"| {name} | {f'`{test}`' if found else 'NOTHING'} |", flush=True)
        missed += [] if found else [name]
    if missed:
        sys.exit(f"not found: {missed}")


def passes(test: str, folder: str) -> bool:
    """Whether the test passes in that tree; one that hangs does not."""
    command = f"{sys.executable} -m pytest -q -x -p no:cacheprovider {test}"
    try:
        done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, timeout=400)
    except subprocess.TimeoutExpired:
        return False
    assert done.returncode in (0, 1), done.stdout.decode() + done.stderr.decode()
    return done.returncode == 0


if __name__ == "__main__":
    main(sys.argv[1:])
