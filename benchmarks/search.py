"""Multi-vector search: recall against exact MaxSim, time, size and build time, of our indexes and others'.

    python benchmarks/run.py search [--shared ../shared] [--work outputs/search] [--cases clustered,pages,scifact]

clustered   5,000 × 200 vectors made to look like pages' (search_corpora.py), 100 queries of 24 vectors
pages       373 real pages, their text layer through MiniLM, 817 real queries (of which 100)
scifact     5,183 real abstracts through MiniLM, 300 real queries (of which 100)

One query at a time on one thread; CPU milliseconds, medians over queries and rounds, our searches taken in turn. Peers
run in environments of their own on the same vectors. bytes: of the index; `vectors_bytes`: of the stored vectors that
exact scores are read from. build_s: CPU seconds on one thread. ratio: a query's time / that of ours (the first row that
is no exact search). frontier: nothing else here has more recall at most as slow, or as much recall and is faster.

Writes benchmarks/results/search.json and prints the table that docs/searching.md shows. `--quick`: 300 small documents.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import peers
import torch
from search_corpora import clustered, encoded

from colmrl import provenance
from colmrl.configure import load_config
from colmrl.search import Asked, Plan, open_searcher
from colmrl.search.building import build_indexes
from colmrl.store import EmbeddingStore
from colmrl.view import View

VIEW = View("multi", 128)
ROUNDS, QUERIES = 3, 100
Row = dict[str, Any]


@dataclass(frozen=True)
class Way:
    """One way to search: FAISS index type (None: none), plan, probes, candidates."""

    kind: str | None
    plan: str
    probes: int | None = None
    candidates: int | None = None

    @property
    def name(self) -> str:
        if self.kind is None:
            return "exact" if self.plan == str(VIEW) else f"funnel {self.plan}"
        how = f", {self.probes} probes, {self.candidates} candidates" if self.probes else ""
        return f"token {self.kind}{how or ', as built by default'}"


SETTINGS = ((4, 50), (8, 50), (8, 100), (32, 100), (32, 200))  # probes, candidates
WAYS = (
    Way(None, str(VIEW)),
    Way("ivf", str(VIEW)),
    *(Way(kind, str(VIEW), *settings) for kind in ("ivf", "rabitq") for settings in SETTINGS),
    *(Way(None, f"single@{dim}/{keep}+{VIEW}") for dim, keep in ((64, 100), (128, 100), (128, 300))),
)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--work", type=Path, default=Path("outputs/search"), help="where stores and indexes are kept")
    parser.add_argument("--cases", default="clustered,pages,scifact")
    parser.add_argument("--peers", default="fast-plaid,PyLate PLAID")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/search.json"))
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    rows: list[Row] = []
    for case in ["quick"] if arguments.quick else arguments.cases.split(","):
        store = store_of(case, arguments.work, arguments.shared)
        tools = [] if arguments.quick else [name for name in arguments.peers.split(",") if name]
        rows += show(compare(case, store, arguments.work / f"{store.name}-{VIEW.slug}", tools))
    machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    content = {"command": provenance.command(), "commit": provenance.commit(), "machine": machine, "rows": rows}
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")


def store_of(case: str, work: Path, shared: Path) -> Path:
    model = shared / "models/all-MiniLM-L6-v2"
    match case:
        case "quick":
            return clustered(work / "quick", documents=300, tokens=20, queries=5)
        case "clustered":
            return clustered(work / "clustered", documents=5000, tokens=200, queries=QUERIES)
        case "pages":
            return encoded(work / "pages_lilypond", shared / "data/pages_lilypond", model)
        case "scifact":
            return encoded(work / "scifact", shared / "data/scifact", model)
        case _:
            raise SystemExit(f"--cases: {case}: choose from clustered, pages, scifact")


def compare(case: str, store: Path, work: Path, tools: list[str]) -> list[Row]:
    """A row for each way to search this store."""
    documents, queries = EmbeddingStore(store / "documents"), EmbeddingStore(store / "queries")
    some = np.random.default_rng(0).permutation(len(queries))[:QUERIES].tolist()
    asked = Asked.of_store(queries, sorted(some))
    built = {kind: build(store, work, kind) for kind in ("ivf", "rabitq")}
    found = search_in_turn(documents, asked, {kind: folder for kind, (folder, _, _) in built.items()})
    exact = [ranked for _, ranked in found[WAYS[0].name][: len(asked)]]
    vectors = sum(item.codes.values.nbytes for item in documents.coded(VIEW))
    known = {"case": f"{case}: {len(documents):,} documents", "tool": "colmrl", "version": metadata.version("colmrl")}
    rows = []
    for way in WAYS:
        _, size, build_s = built[way.kind] if way.kind else (None, 0, 0.0)
        rows.append({**known, "way": way.name, **judged(found[way.name], exact), "bytes": size})
        rows[-1] |= {"vectors_bytes": vectors, "build_s": build_s}
    for tool in tools:
        rows += peer_rows(tool, known["case"], work, documents, asked, exact, vectors)
    for row in rows:
        row["ratio"] = row["median_s"] / rows[1]["median_s"]
        row["of_exact"] = row["median_s"] / rows[0]["median_s"]
        row["frontier"] = not any(beats(other, row) for other in rows)
    return rows


def build(store: Path, work: Path, kind: str) -> tuple[Path, int, float]:
    """The index's folder, its bytes, and the CPU seconds that it took to build (kept from the first time)."""
    kept = work / f"{kind}.json"
    started = time.process_time()
    config = load_config(None, [f"index.type={kind}", "index.queries=1", "index.gpu=false", "threads=1"])
    (built,) = build_indexes(config, store, [VIEW], work)
    if not built.there:
        kept.write_text(json.dumps({"build_s": time.process_time() - started}))
    return built.folder, built.manifest.bytes, json.loads(kept.read_text())["build_s"]


def search_in_turn(documents: EmbeddingStore, asked: Asked, indexes: dict[str, Path]) -> dict[str, list]:
    """Way → CPU seconds and ranked documents of each query, round after round."""
    searchers = {
        way.name: open_searcher(
            documents, Plan.parse(way.plan), False, indexes[way.kind] if way.kind else None, way.probes, way.candidates
        )
        for way in WAYS
    }
    found: dict[str, list] = defaultdict(list)
    for _ in range(ROUNDS):
        for row in range(len(asked)):
            one = asked.rows([row])
            for name, searcher in searchers.items():
                started = time.process_time()
                ranking = searcher.rank(one, 10)
                found[name].append((time.process_time() - started, ranking.positions[0].tolist()))
    return found


def peer_rows(
    tool: str, case: str, work: Path, documents: EmbeddingStore, asked: Asked, exact: list, vectors: int
) -> list[Row]:
    folder = work / "peers"
    folder.mkdir(parents=True, exist_ok=True)
    every = documents.multi_rows(VIEW, np.arange(len(documents)))
    for kind, items in (("documents", every), ("queries", asked.multi_at(VIEW))):
        np.save(folder / f"{kind}.npy", items.vectors.numpy())
        np.save(folder / f"{kind}.offsets.npy", items.offsets.numpy())
    del every
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    script = Path(__file__).with_name("search_peers.py")
    command = [peers.python({"fast-plaid": "fast-plaid", "PyLate PLAID": "pylate-plaid"}[tool]), script, tool, folder]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | dict.fromkeys(names, "1"))
    if done.returncode:
        raise SystemExit(f"{tool}: {done.stderr[-2000:]}")
    told = json.loads(done.stdout.splitlines()[-1])
    rows = []
    for way, timed in told["found"].items():
        known = {"case": case, "tool": tool, "version": told["version"], "way": way, "bytes": told["bytes"]}
        numbers = judged([(ms / 1e3, ranked) for ms, ranked in timed], exact)
        rows.append({**known, **numbers, "build_s": told["build_s"], "vectors_bytes": vectors if "exact" in way else 0})
    return rows


def judged(timed: list[tuple[float, list[int]]], exact: list[list[int]]) -> Row:
    shares = [len(set(ranked) & set(best)) / len(best) for (_, ranked), best in zip(timed, exact, strict=False)]
    return {"recall_at_10": statistics.mean(shares), "median_s": statistics.median(seconds for seconds, _ in timed)}


def beats(one: Row, other: Row) -> bool:
    """Better in recall or time, and not worse in the other."""
    at_least = one["recall_at_10"] >= other["recall_at_10"] and one["median_s"] <= other["median_s"]
    return at_least and (one["recall_at_10"], one["median_s"]) != (other["recall_at_10"], other["median_s"])


def show(rows: list[Row]) -> list[Row]:
    print(f"\n{rows[0]['case']}\n| tool | way | recall@10 | ms | of exact | MB | build s | frontier |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        numbers = f"{row['recall_at_10']:.3f} | {1e3 * row['median_s']:.1f} | {row['of_exact']:.2f}"
        size = f"{row['bytes'] / 1e6:.0f} | {row['build_s']:.0f} | {'✓' if row['frontier'] else ''}"
        print(f"| {row['tool']} | {row['way']} | {numbers} | {size} |", flush=True)
    return rows


if __name__ == "__main__":
    main()
