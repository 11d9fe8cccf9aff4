"""One peer's index on exported vectors, run by its own interpreter: python search_peers.py TOOL FOLDER

FOLDER holds {documents,queries}.npy and their offsets. Prints JSON: version, build_s, bytes, and for each setting the
CPU milliseconds and the ranked documents of each query, as the tool ranks them and after exact MaxSim of its best 100.
"""

import itertools
import json
import os
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

PROBES = (8, 32)
DEEP = 100


def main(tool: str, folder: Path) -> None:
    torch.set_num_threads(1)
    documents, queries = read(folder, "documents"), read(folder, "queries")
    started = cpu()
    search = {"fast-plaid": fast_plaid, "PyLate PLAID": pylate_plaid}[tool](folder / tool.replace(" ", "-"), documents)
    build_s = cpu() - started
    found = {}
    for probes in PROBES:
        plain, rescored = [], []
        for query in queries:
            started = cpu()
            rows = search(query, DEEP, probes)
            middle = cpu()
            columns = query.T.contiguous()
            scores = torch.stack([(documents[row] @ columns).amax(0).mean() for row in rows])
            best = [rows[i] for i in scores.argsort(descending=True)[:10]]
            plain.append([1e3 * (middle - started), rows[:10]])
            rescored.append([1e3 * (cpu() - started), best])
        found[f"{probes} probes"] = plain
        found[f"{probes} probes, exact on {DEEP}"] = rescored
    size = sum(path.stat().st_size for path in (folder / tool.replace(" ", "-")).rglob("*") if path.is_file())
    package = {"fast-plaid": "fast-plaid", "PyLate PLAID": "pylate"}[tool]
    print(json.dumps({"version": metadata.version(package), "build_s": build_s, "bytes": size, "found": found}))


def fast_plaid(folder: Path, documents: list[torch.Tensor]):
    from fast_plaid import search

    index = search.FastPlaid(index=str(folder), device="cpu")
    index.create(documents_embeddings=documents)

    def run(query: torch.Tensor, k: int, probes: int) -> list[int]:
        (rows,) = index.search(query[None], top_k=k, n_ivf_probe=probes, show_progress=False)
        return [int(row) for row, _ in rows]

    return run


def pylate_plaid(folder: Path, documents: list[torch.Tensor]):
    from pylate import indexes

    def open_index(probes: int, override: bool):
        return indexes.PLAID(
            str(folder),
            "index",
            override=override,
            n_ivf_probe=probes,
            device="cpu",
            show_progress=False,
            num_threads=1,
        )

    names = [str(row) for row in range(len(documents))]
    open_index(PROBES[0], True).add_documents(names, [document.numpy() for document in documents])
    opened = {probes: open_index(probes, False) for probes in PROBES}

    def run(query: torch.Tensor, k: int, probes: int) -> list[int]:
        (found,) = opened[probes](query[None], k=k)
        return [int(one["id"]) for one in found]

    return run


def read(folder: Path, kind: str) -> list[torch.Tensor]:
    vectors, offsets = np.load(folder / f"{kind}.npy"), np.load(folder / f"{kind}.offsets.npy")
    return [torch.from_numpy(vectors[start:stop]) for start, stop in itertools.pairwise(offsets)]


def cpu() -> float:
    """Seconds of this process, its threads and the processes that it waited for."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
