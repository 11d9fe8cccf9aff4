"""Mining 100,000 queries against 100,000 documents at single@256, beside sentence-transformers on the same vectors.

    python benchmarks/run.py mining             # --quick: 2,000 × 2,000 at 32 dims, a few seconds

Clustered random vectors, each query near its one answer. Ours goes the whole way: two stores and a data folder on disk,
read and checked, searched in blocks, filtered, sampled; triples, report and picture written. Theirs is
`mine_hard_negatives` with a model that returns the same vectors at once (no encoding, no files), with FAISS and without
(in blocks of 2,048 queries: the default, 16,384, would hold 6.6 GB of scores). Same options: range_max 50,
relative_margin, max_score, min_score, range_min 2, the four best. One thread, each in a process of its own; CPU
seconds and peak memory beyond what the process held after importing.

Writes benchmarks/results/mining.json and prints the table that docs/mining.md shows.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from workers import measured

from colmrl import provenance

NEGATIVES, RANGE_MIN, RANGE_MAX = 4, 2, 50
MARGIN, MAX_SCORE, MIN_SCORE = 0.3, 0.53, 0.47  # each removes some of these vectors' candidates
ROUNDING = 1e-6  # scores that differ by less are ties
SHARD = 4096
TOOLS = ("colmrl", "sentence-transformers, FAISS", "sentence-transformers, torch")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=100_000, help="queries, and documents")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/mining.json"))
    parser.add_argument("--measure", nargs=2, metavar=("TOOL", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.measure:
        tool, folder = arguments.measure
        print(json.dumps(measure(tool, Path(folder))))
        return
    size, dim = (2000, 32) if arguments.quick else (arguments.size, arguments.dim)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, size, dim)
        found = {tool: _apart(tool, folder) for tool in TOOLS}
        rows = [
            {"case": f"{size:,} × {size:,} at single@{dim}", "tool": tool, "version": version(tool), **found[tool]}
            | {"ratio": found[tool]["cpu_s"] / found["colmrl"]["cpu_s"], **compare(folder, tool)}
            for tool in TOOLS
        ]
    for row in rows:
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
    machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    content = {"command": provenance.command(), "commit": provenance.commit(), "machine": machine, "rows": rows}
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")


def prepare(folder: Path, size: int, dim: int, seed: int = 0) -> None:
    """Data, and a store of documents and of queries; query n is answered by document n."""
    from made_stores import write_store

    from colmrl.store import ArraySpec

    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(2, size // 100), dim)).astype(np.float32)
    documents = centres[rng.integers(len(centres), size=size)]
    documents += rng.normal(scale=0.7, size=documents.shape).astype(np.float32)
    queries = documents + rng.normal(scale=1.0, size=documents.shape).astype(np.float32)
    data = folder / "data"
    (data / "qrels").mkdir(parents=True)
    for name, letter in (("corpus", "d"), ("queries", "q")):
        lines = (json.dumps({"_id": f"{letter}{n}", "text": f"{letter} {n}"}) + "\n" for n in range(size))
        (data / f"{name}.jsonl").write_text("".join(lines))
    judged = "".join(f"q{n}\td{n}\t1\n" for n in range(size))
    (data / "qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    for kind, vectors in (("documents", documents), ("queries", queries)):
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        write_store(
            folder, kind, (ArraySpec("single", dim),), SHARD, lambda some, given=vectors: {"single": given[some]}
        )


def measure(tool: str, folder: Path) -> dict[str, float]:
    """CPU and wall seconds and peak memory of one tool; what it mined lies in `folder` afterwards."""
    keep, taken = measured(prepare_tool(tool, folder))
    keep()
    return taken


def prepare_tool(tool: str, folder: Path) -> Callable[[], Callable[[], None]]:
    """With everything imported: what to measure, which gives what to do afterwards."""
    return ours(folder) if tool == "colmrl" else theirs(folder, tool)


def ours(folder: Path) -> Callable[[], Callable[[], None]]:
    import faiss
    import matplotlib.figure  # noqa: F401
    import torch

    from colmrl.configure import load_config
    from colmrl.mining import mine

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    filters = f"[{{relative_margin: {MARGIN}}}, {{max_score: {MAX_SCORE}}}, {{min_score: {MIN_SCORE}}}, "
    filters += f"{{range_max: {RANGE_MAX}}}, {{range_min: {RANGE_MIN}}}]"
    options = [f"mine.k={RANGE_MAX + 1}", f"mine.negatives={NEGATIVES}", f"mine.filters={filters}"]
    config = load_config(None, ["device=cpu", "threads=1", "mine.gpu=false", *options])
    out = folder / "triples.jsonl"

    def run() -> Callable[[], None]:
        mine(config, folder / "store", out)
        return keep

    def keep() -> None:
        rows = (json.loads(line) for line in out.open())
        save(folder, "colmrl", [(row["query_id"], row["neg_ids"], row["neg_scores"]) for row in rows])

    return run


def theirs(folder: Path, tool: str) -> Callable[[], Callable[[], None]]:
    import faiss
    import torch
    from datasets import Dataset
    from sentence_transformers.util import dot_score, mine_hard_negatives, pairwise_dot_score

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    of = {kind[0]: stored(folder, kind) for kind in ("documents", "queries")}
    names = [f"d{n}" for n in range(len(of["d"]))]

    def encode(texts: list[str], **_: object) -> np.ndarray:
        return of[texts[0][0]][[int(text[1:]) for text in texts]]

    model = SimpleNamespace(device="cpu", encode_query=encode, encode_document=encode)
    model.similarity, model.similarity_pairwise = dot_score, pairwise_dot_score
    model.get_embedding_dimension = lambda: of["d"].shape[1]
    pairs = Dataset.from_dict({"query": [f"q{n}" for n in range(len(of["q"]))], "positive": names})

    def run() -> Callable[[], None]:
        mined = mine_hard_negatives(
            pairs,
            model,  # pyright: ignore[reportArgumentType]
            corpus=names,
            range_min=RANGE_MIN,
            range_max=RANGE_MAX,
            max_score=MAX_SCORE,
            min_score=MIN_SCORE,
            relative_margin=MARGIN,
            num_negatives=NEGATIVES,
            output_format="labeled-list",
            output_scores=True,
            use_faiss="FAISS" in tool,
            faiss_batch_size=16384 if "FAISS" in tool else 2048,
            verbose=False,
        )
        rows = zip(*(mined[column] for column in ("query", "positive", "scores")), strict=True)
        return lambda: save(folder, tool, [(query, found[1:], scores[1:]) for query, found, scores in rows])

    return run


def stored(folder: Path, kind: str) -> np.ndarray:
    from colmrl.store import EmbeddingStore

    store = EmbeddingStore(folder / "store" / kind)
    return np.concatenate(list(store.single(store.views()[0])))


def save(folder: Path, tool: str, rows: list[tuple[str, list[str], list[float]]]) -> None:
    mined = {query: [names, scores] for query, names, scores in rows if names}
    (folder / f"{tool.replace(' ', '-')}.json").write_text(json.dumps(mined))


def compare(folder: Path, tool: str) -> dict[str, float]:
    """With what ours mined: the share of queries with the very same negatives in the same order, and how many have
    others that no tie explains.
    """
    mined, own = (json.loads((folder / f"{t.replace(' ', '-')}.json").read_text()) for t in (tool, "colmrl"))
    same = sum(mined.get(query, [[]])[0] == own.get(query, [[]])[0] for query in mined.keys() | own.keys())
    other = 0
    for query in mined.keys() | own.keys():
        (_, a), (_, b) = mined.get(query, [[], []]), own.get(query, [[], []])
        other += len(a) != len(b) or any(abs(x - y) > ROUNDING for x, y in zip(a, b, strict=True))
    return {"queries_with_negatives": len(mined), "same": same / len(mined.keys() | own.keys()), "not_by_ties": other}


def _apart(tool: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", tool, str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def version(tool: str) -> str:
    return metadata.version(tool.split(",")[0])


if __name__ == "__main__":
    main()
