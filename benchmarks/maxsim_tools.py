"""One tool's MaxSim, in a process of its own: `python maxsim_tools.py TOOL FOLDER`; only numpy and that tool needed.

For each line on its input, a case, it scores once and answers with a line {"cpu_s", "wall_s"}; the scores of the first
time are kept as FOLDER/CASE-TOOL.npy, a mean over query vectors. Every tool gets what suits it: lists of arrays or of
tensors, or padded blocks of 64 documents that are made before the clock starts.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 64  # padded documents: what the tools that take padded tensors are given at a time
Scores = Callable[[], np.ndarray]


def main() -> None:
    tool, folder = sys.argv[1], Path(sys.argv[2])
    prepare = {"maxsim-cpu": rust, "fast-maxsim": rust, "gemm": gemm}.get(tool, ours if tool in OURS else padded)
    run = prepare(tool, folder)
    print("ready", version(tool), flush=True)
    for line in sys.stdin:
        case = line.strip()
        target = folder / f"{case}-{tool}.npy"
        score = run(case)
        if not target.exists():
            np.save(target, score())
        cpu, wall = time.process_time(), time.perf_counter()
        score()
        seconds = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
        print(json.dumps(seconds), flush=True)


def version(tool: str) -> str:
    from importlib import metadata

    return metadata.version("colmrl" if tool in OURS else "torch" if tool == "gemm" else tool)


def read(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Queries [q n h] of each case, document vectors, offsets."""
    queries = np.load(folder / "queries.npy")
    cases = {"many": queries, "one": queries[:1]}
    return cases, np.load(folder / "documents.npy"), np.load(folder / "offsets.npy")


def rust(tool: str, folder: Path) -> Callable[[str], Scores]:
    from importlib import import_module

    score = import_module(tool.replace("-", "_")).maxsim_scores_variable
    cases, vectors, offsets = read(folder)
    documents = np.split(vectors, offsets[1:-1])
    return lambda case: lambda: np.stack([score(query, documents) / len(query) for query in cases[case]])


def padded(tool: str, folder: Path) -> Callable[[str], Scores]:
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    arrays, vectors, offsets = read(folder)
    cases = {case: torch.from_numpy(queries) for case, queries in arrays.items()}
    documents = [torch.from_numpy(one) for one in np.split(vectors, offsets[1:-1])]
    pad = torch.nn.utils.rnn.pad_sequence
    blocks = [pad(documents[s : s + BLOCK], batch_first=True) for s in range(0, len(documents), BLOCK)]
    ones = [torch.ones(len(one), dtype=torch.bool) for one in documents]
    masks = [pad(ones[s : s + BLOCK], batch_first=True) for s in range(0, len(ones), BLOCK)]
    together = list(zip(blocks, masks, strict=True))
    match tool:
        case "sentence-transformers":
            from sentence_transformers.util import maxsim

            def sums(queries: torch.Tensor) -> torch.Tensor:
                return maxsim(list(queries), documents)
        case "colpali-engine":
            name_operators(torch)
            from colpali_engine.utils.processing_utils import BaseVisualRetrieverProcessor

            def sums(queries: torch.Tensor) -> torch.Tensor:
                return BaseVisualRetrieverProcessor.score_multi_vector(list(queries), documents, device="cpu")
        case "pylate":
            from pylate.scores import colbert_scores

            def sums(queries: torch.Tensor) -> torch.Tensor:
                return torch.cat([colbert_scores(queries, block, None, mask) for block, mask in together], 1)
        case "late-interaction-kernels":
            from late_interaction_kernels import MaxSimScorer

            scorer = MaxSimScorer(normalize=False)

            def sums(queries: torch.Tensor) -> torch.Tensor:
                return torch.cat([scorer.score(queries, block, None, mask) for block, mask in together], 1)
        case _:
            raise ValueError(tool)

    def run(case: str) -> Scores:
        def score() -> np.ndarray:
            with torch.inference_mode():
                return (sums(cases[case]) / cases[case].shape[1]).numpy()

        return score

    return run


def name_operators(torch: Any) -> None:
    """colpali-engine imports torchvision, which has no CPU build: its compiled part cannot be loaded beside torch's
    CPU build, and importing fails for operators that nothing here calls. Their names are enough."""
    sampling = ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")
    for name in ("nms", "qnms", *sampling, *(f"_{one}_backward" for one in sampling)):
        torch.library.define(f"torchvision::{name}", "(Tensor a) -> Tensor")


OURS = ("fp32", "bf16 + fp32 rescoring", "fp16 codes", "int8 codes", "binary codes")


def ours(tool: str, folder: Path) -> Callable[[str], Scores]:
    """Codes: documents as kept in a store; their scores are set beside those of the decoded vectors, see maxsim.py."""
    import torch

    from colmrl.coding import CodedItems, code
    from colmrl.scoring import MultiVectors, maxsim, maxsim_top

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    arrays, vectors, offsets = read(folder)
    cases = {case: MultiVectors.pack(list(torch.from_numpy(queries))) for case, queries in arrays.items()}
    documents = MultiVectors(torch.from_numpy(vectors), torch.from_numpy(offsets))
    match tool.split():
        case [("fp16" | "int8" | "binary") as precision, "codes"]:
            coded = CodedItems(code(documents.vectors, precision), documents.offsets)
            np.save(folder / f"decoded-{tool}.npy", coded.codes.decode().numpy())
            return lambda case: lambda: maxsim(cases[case], coded).numpy()
        case ["fp32"]:
            return lambda case: lambda: maxsim(cases[case], documents).numpy()
        case _:
            return lambda case: lambda: maxsim_top(cases[case], [documents], 10, "bf16")[1].numpy()


def gemm(tool: str, folder: Path) -> Callable[[str], Scores]:
    """ "peak": one product of 2048³; "products": what MaxSim multiplies, one document at a time, and no maxima."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    cases, vectors, offsets = read(folder)
    columns = torch.from_numpy(cases["many"]).flatten(0, 1).T.contiguous()
    documents = torch.from_numpy(vectors).split(np.diff(offsets).tolist())
    out = torch.empty(max(map(len, documents)), columns.shape[1])
    side = torch.randn(3, 2048, 2048)

    def products() -> np.ndarray:
        for one in documents:
            torch.mm(one, columns, out=out[: len(one)])
        return np.zeros(0)

    def peak() -> np.ndarray:
        torch.mm(side[0], side[1], out=side[2])
        return np.zeros(0)

    return lambda case: {"peak": peak, "products": products}[case]


if __name__ == "__main__":
    main()
