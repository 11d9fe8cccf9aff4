"""A store of 20,000 multi-vector documents in Qdrant: put in, killed in the middle, gone on with, asked.

    python benchmarks/run.py database [--to http://HOST:6333]      # a folder of its own by default

`--to` is all that changes for a server or cluster (its token in QDRANT_API_KEY). Documents: 48 vectors of 128 dims made
to look like pages' (search_corpora.py), with texts and meta; queries: noisy parts of them. The export is `colmrl export
index` in a process of its own, killed by SIGKILL from outside when about half is there. Then every id is listed, and
queries are asked one at a time of the database and of exact search: medians of wall time. ratio: its / exact's.

Writes benchmarks/results/database.json and prints the table that docs/database.md shows. `--quick`: 600 documents.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from search_corpora import clustered

from colmrl import provenance
from colmrl.configure import load_config
from colmrl.database import Address
from colmrl.database.agreement import agreements
from colmrl.database.connecting import connect
from colmrl.view import parse_views

TOKENS, DIM = 48, 128
CASES = {"fp32": "single@128,multi@128", "coded": "single@128,multi@128:int8,multi@128:binary"}
ROOT = Path(__file__).parents[1]
Row = dict[str, Any]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", help="a folder, or a server's address")
    parser.add_argument("--work", type=Path, default=Path("outputs/database"))
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/database.json"))
    arguments = parser.parse_args(argv)
    documents = 600 if arguments.quick else 20_000
    work = arguments.work / str(documents)
    store = clustered(work / "store", documents, TOKENS, 50, data=work / "data")
    to = arguments.to or str(work / "qdrant")
    if not arguments.to:
        shutil.rmtree(to, ignore_errors=True)
    rows = []
    for case in arguments.cases.split(","):
        rows += show(compare(case, store, to, documents, arguments.queries))
    content = {"command": provenance.command(), "commit": provenance.commit(), "machine": f"{os.cpu_count()} cores"}
    arguments.out.write_text(json.dumps(content | {"rows": rows}, indent=1) + "\n")


def compare(case: str, store: Path, to: str, documents: int, queries: int) -> list[Row]:
    address, views = Address.parse(to, f"benchmark-{case}"), CASES[case]
    flags = ["--store", store, "--to", to, "--views", views, "--collection", address.collection, "--queries", "0"]
    command = [sys.executable, "-m", "colmrl", "export", "index", *map(str, flags), "threads=1"]
    killed_s = killed(command, address, documents)
    after_kill = len(ids(address))
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    resumed_s = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    listed = ids(address)
    assert len(set(listed)) == len(listed) == documents, "documents are there once each"
    collection = connect(address)
    collection.settle()
    size = collection.size_bytes()
    collection.close()
    tool = "qdrant-client" if address.remote else "qdrant-edge-py"
    known = {"case": case, "tool": tool, "version": metadata.version(tool), "documents": documents, "bytes": size}
    known |= {
        "killed_s": killed_s,
        "after_kill": after_kill,
        "resumed_s": resumed_s,
        "said": done.stdout.split("\n")[0],
    }
    config = load_config(None, ["threads=1", "index.gpu=false"])
    rows = []
    for one in agreements(config, store, parse_views(views), address, None, queries):
        row = {"view": str(one.plan), "recall_at_10": one.recall, "difference": one.difference}
        row |= {"median_s": one.query_ms / 1e3, "exact_s": one.exact_ms / 1e3, "ratio": one.query_ms / one.exact_ms}
        rows.append(known | row | {"memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})
    return rows


def killed(command: list[str], address: Address, documents: int) -> float:
    """Seconds until half of the documents' vectors were there, and the process was killed."""
    half, every_s = documents * TOKENS * DIM * 4 // 2, documents / 100_000
    started = time.perf_counter()
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment())
    while running.poll() is None and progress(address) < (documents // 2 if address.remote else half):
        time.sleep(every_s)
    if running.poll() is not None:
        raise SystemExit(f"ended before it was killed: {running.stderr and running.stderr.read().decode()}")
    running.send_signal(signal.SIGKILL)
    running.wait()
    return time.perf_counter() - started


def progress(address: Address) -> int:
    """Documents that a server has; bytes in a folder, which only the writing process has open."""
    if address.remote:
        return len(ids(address))
    files = (Path(folder, name) for folder, _, names in os.walk(address.folder) for name in names)
    return sum(512 * blocks(file) for file in files)


def blocks(file: Path) -> int:
    """Of 512 bytes; none of a file that was taken away since it was listed."""
    try:
        return file.stat().st_blocks
    except FileNotFoundError:
        return 0


def ids(address: Address) -> list[str]:
    collection = connect(address)
    listed = [name for name, _ in collection.hashes()] if collection.about() else []
    collection.close()
    return listed


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def show(rows: list[Row]) -> list[Row]:
    first = rows[0]
    size = f"{first['bytes'] / 1e6:,.0f} MB" if first["bytes"] else "bytes unknown"
    killed = f"killed after {first['killed_s']:.0f} s with {first['after_kill']:,} documents there"
    print(f"\n{first['case']}: {killed}; the rest in {first['resumed_s']:.0f} s; {size}; {first['said']}")
    print("| asked | recall@10 | scores differ by | query ms | exact ms | ratio |\n|---|---|---|---|---|---|")
    for row in rows:
        ms, exact = 1e3 * row["median_s"], 1e3 * row["exact_s"]
        numbers = f"{row['recall_at_10']:.3f} | {row['difference']:.0e} | {ms:,.0f} | {exact:,.0f} | {row['ratio']:.2f}"
        print(f"| `{row['view']}` | {numbers} |", flush=True)
    return rows


if __name__ == "__main__":
    main()
