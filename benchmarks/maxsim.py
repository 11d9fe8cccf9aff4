"""MaxSim on a CPU beside the libraries that have it: the same vectors, equal scores, CPU seconds.

    python benchmarks/run.py maxsim             # --quick: 40 documents; --only TOOL …: these, and ours in fp32

32 queries of 24 vectors and 2,000 documents of 256–768, at 128 dims, random, in fp32. Every tool runs in a process of
its own with one thread, peers in environments of their own (peers.py); rounds go through all tools in turn, so that
what else the machine does falls on all, and medians over rounds are given. Ratio: a tool's cost to that of ours in
fp32 in the same case. "of peak": floating-point operations of the products alone, a second, over those of one product
of 2048³ in the same rounds. Two threads are timed by the clock, which other work on the machine disturbs.

Writes benchmarks/results/maxsim.json and prints the table that docs/scoring.md shows.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import peers
from maxsim_tools import OURS

from colmrl import provenance

PEERS = ("sentence-transformers", "colpali-engine", "pylate", "late-interaction-kernels", "maxsim-cpu", "fast-maxsim")
CASES = {"many": "{} queries × {} documents", "one": "1 query × {1} documents", "two threads": "{} queries, 2 threads"}
EQUAL = 1e-4  # most that a score may differ, averaged over query vectors


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="40 documents, one round, one thread")
    parser.add_argument("--only", nargs="*", choices=[*OURS, *PEERS], help="these tools beside ours in fp32")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/maxsim.json"))
    options = parser.parse_args(argv)
    queries, documents, rounds = (4, 40, 1) if options.quick else (32, 2000, options.rounds)
    tools = ["fp32", *(t for t in (*OURS[1:], *PEERS) if options.only is None or t in options.only)]
    with tempfile.TemporaryDirectory() as folder:
        operations = prepare(Path(folder), queries, documents)
        found, versions, skipped = measure(Path(folder), tools, (1,) if options.quick else (1, 2), rounds)
        rows = summary(found, versions, queries, documents, operations)
        for row in rows:
            row |= compare(Path(folder), row)
    show(rows, skipped)
    machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    content = {"command": provenance.command(), "commit": provenance.commit(), "machine": machine, "rows": rows}
    options.out.write_text(json.dumps(content | {"skipped": skipped}, indent=1) + "\n")


def prepare(folder: Path, queries: int, documents: int) -> int:
    """Random unit vectors; what a product of all pairs of vectors takes, in floating-point operations."""
    random = np.random.default_rng(0)
    counts = random.integers(256, 769, documents)
    for name, shape in (("queries", (queries, 24, 128)), ("documents", (counts.sum(), 128))):
        vectors = random.normal(size=shape).astype(np.float32)
        np.save(folder / f"{name}.npy", vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
    np.save(folder / "offsets.npy", np.concatenate([[0], counts.cumsum()]))
    return int(2 * queries * 24 * 128 * counts.sum())


def measure(
    folder: Path, tools: list[str], threads: tuple[int, ...], rounds: int
) -> tuple[dict, dict[str, str], dict[str, str]]:
    """(case, tool) → what each round took; versions; and the tools that could not be run, with the reason."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    versions, skipped = {}, {}
    for count in threads:  # one after the other: every tool's process holds all vectors
        wanted = ["gemm", *tools] if count == 1 else [tool for tool in tools if tool not in OURS[2:]]
        with ExitStack() as stack:
            workers = {}
            for tool in wanted:
                try:
                    worker = stack.enter_context(working(tool, folder, count))
                    versions[tool] = answer(worker).split()[1]
                    workers[tool] = worker
                except (peers.Unavailable, EOFError) as error:
                    skipped[tool] = str(error)
            for number in range(rounds):
                print(f"{count} thread(s), round {number + 1} of {rounds}", flush=True)
                for tool, worker in workers.items():
                    for case in (
                        ("peak", "products") if tool == "gemm" else ("many", "one") if count == 1 else ("many",)
                    ):
                        worker.stdin.write(case + "\n")
                        worker.stdin.flush()
                        took = json.loads(answer(worker))
                        found.setdefault(("two threads" if count == 2 else case, tool), []).append(took)
    return found, versions, skipped


@contextmanager
def working(tool: str, folder: Path, threads: int) -> Iterator[subprocess.Popen]:
    program = peers.python(tool) if tool in peers.PEERS else Path(sys.executable)
    numbers = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
    target = folder / str(threads)
    target.mkdir(exist_ok=True)
    for name in ("queries", "documents", "offsets"):
        if not (target / f"{name}.npy").exists():
            (target / f"{name}.npy").symlink_to(folder / f"{name}.npy")
    command = [program, Path(__file__).with_name("maxsim_tools.py"), tool, target]
    errors = (target / f"{tool}.log").open("w+")
    with (
        errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | numbers
        ) as worker,
    ):
        worker.errors = errors
        yield worker
        worker.stdin.close()


def answer(worker: subprocess.Popen) -> str:
    line = worker.stdout.readline()
    if not line:
        worker.wait()
        worker.errors.seek(0)
        raise EOFError((worker.errors.read().strip().splitlines() or ["stopped without a message"])[-1])
    return line


def summary(found: dict, versions: dict[str, str], queries: int, documents: int, operations: int) -> list[dict]:
    median = {
        key: statistics.median(one["wall_s" if key[0] == "two threads" else "cpu_s"] for one in runs)
        for key, runs in found.items()
    }
    peak = 2 * 2048**3 / median["peak", "gemm"]
    rows = []
    for (case, tool), seconds in sorted(
        median.items(), key=lambda item: [*CASES, "peak", "products"].index(item[0][0])
    ):
        row = {"case": case, "tool": f"colmrl, {tool}" if tool in OURS else tool, "version": versions[tool]}
        row |= {"median_s": seconds, "time": "wall" if case == "two threads" else "CPU"}
        if case in CASES:
            row["case"] = CASES[case].format(queries, documents)
            row["ratio"] = seconds / median[case, "fp32"]
        if case in ("many", "products"):
            row["of_peak"] = operations / seconds / peak
        if case == "peak":
            row["gflops"] = peak / 1e9
        rows.append(row | {"files": (case, tool)})
    return rows


def compare(folder: Path, row: dict) -> dict:
    """Largest difference to our fp32 scores (codes: to plain ones of decoded vectors); are the best ten the same?"""
    case, tool = row.pop("files")
    if case not in CASES or tool == "fp32":
        return {}
    here, file = (folder / "2", "many") if case == "two threads" else (folder / "1", case)
    exact, other = np.load(folder / "1" / f"{file}-fp32.npy"), np.load(here / f"{file}-{tool}.npy")
    if tool == "bf16 + fp32 rescoring":
        return {"same_top_10": bool((np.argsort(-exact, 1, kind="stable")[:, :10] == other).all())}
    if tool in OURS:
        exact = plain(folder, file, np.load(here / f"decoded-{tool}.npy"))
    difference = float(np.abs(exact - other).max())
    return {"max_difference": difference, "equal": difference <= EQUAL}


def plain(folder: Path, case: str, vectors: np.ndarray) -> np.ndarray:
    queries = np.load(folder / "queries.npy")[: None if case == "many" else 1]
    documents = np.split(vectors, np.load(folder / "offsets.npy")[1:-1])
    columns = queries.reshape(-1, queries.shape[-1]).T
    best = np.stack([(one @ columns).max(0) for one in documents])
    return best.reshape(len(documents), len(queries), -1).mean(2).T


def show(rows: list[dict], skipped: dict[str, str]) -> None:
    names = ("case", "tool", "version", "time", "median_s", "ratio", "of_peak", "gflops", "max_difference")
    cells = [[*names, "same scores"]]
    for row in rows:
        values = [row.get(name, "") for name in names] + [row.get("same_top_10", row.get("equal", ""))]
        cells.append([f"{value:.3g}" if isinstance(value, float) else str(value) for value in values])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for tool, reason in skipped.items():
        print(f"skipped: {tool}: {reason}")


if __name__ == "__main__":
    main(sys.argv[1:])
