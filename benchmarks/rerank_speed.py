"""Scoring pairs with a pointwise reranker on one CPU thread, beside sentence-transformers' CrossEncoder: same weights,
same pairs, equal scores.

    python benchmarks/run.py rerank_speed       # --quick: few pairs, one round; --only CASE …

MiniLM (real weights where ../shared has them, and texts of SciFact; a linear head on [CLS], drawn at random) and a
small random Qwen3 that answers yes or no to the published Qwen3-Reranker prompt, opened as `colmrl export` writes it.
Each query's candidates are scored as a reranker is used, a query at a time; CrossEncoder.predict gets all pairs in one
call, which lets it sort by length over all of them, and once more a query at a time. Texts are of mixed lengths, and
short enough that neither side cuts any. "forward, whole prompts" is our model over prompts in one piece, sorted and
batched alike: what the shared prefix saves.

Every tool runs in a process of its own; rounds go through all in turn; CPU seconds are medians over rounds. Ratio: to
ours. max_difference: of any score (0–1), to ours. Writes benchmarks/results/rerank_speed.json and prints the table.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from workers import answering, ask, measured, table, trimmed, working

from colmrl import provenance

SHARED = Path(__file__).parents[2] / "shared"
EQUAL = 1e-4
BATCH = 16
BASE = "colmrl"
TOOLS = (BASE, "sentence-transformers: all pairs", "sentence-transformers: a query at a time")
WHOLE = "colmrl: forward, whole prompts"
CASES = {"MiniLM, classifier": TOOLS, "Qwen3, yes or no": (*TOOLS, WHOLE)}
WORDS = (15, 110)  # of a document
Scores = Callable[[], np.ndarray]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--queries", type=int, default=12)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", choices=[*CASES], default=[*CASES], metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/rerank_speed.json"))
    parser.add_argument("--measure", nargs=2, metavar=("TOOL", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.measure:
        answer(options.measure[0], Path(options.measure[1]))
        return
    rounds, queries, candidates = (1, 2, 4) if options.quick else (options.rounds, options.queries, options.candidates)
    rows, skipped = [], {}
    with tempfile.TemporaryDirectory() as work:
        for name in options.only:
            if name.startswith("MiniLM") and not SHARED.is_dir():
                skipped[name] = f"{SHARED} is not there"
                continue
            folder = Path(work) / name
            prepare(folder, name, queries, candidates)
            rows += measure(folder, name, rounds)
    names = ("case", "tool", "version", "pairs_per_cpu_s", "median_s", "ratio", "peak_mib", "max_difference", "equal")
    print(table(rows, names))
    for name, reason in skipped.items():
        print(f"skipped: {name}: {reason}")
    machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    content = {"command": provenance.command(), "commit": provenance.commit(), "machine": machine, "rows": rows}
    options.out.write_text(json.dumps(content | {"skipped": skipped}, indent=1) + "\n")


def prepare(folder: Path, case: str, queries: int, candidates: int) -> None:
    """A checkpoint, the same as a CrossEncoder, and pairs: [query, its candidates] …"""
    from colmrl.configure import load_config
    from colmrl.models.tiny import write_tiny_model
    from colmrl.reranking.export import export_cross_encoder
    from colmrl.reranking.pointwise import PointwiseModel

    folder.mkdir()
    (folder / "asked.json").write_text(json.dumps(pairs(queries, candidates)))
    settings = ["task=pointwise", f"rerank.batch_size={BATCH}", "model.tuning=full"]
    if case.startswith("MiniLM"):
        lengths = ["model.max_query_tokens=120", "model.max_document_tokens=380"]
        backbone = f"model.backbone={SHARED / 'models/all-MiniLM-L6-v2'}"
        PointwiseModel.create(load_config(None, [*settings, backbone, *lengths])).save(folder / "checkpoint")
        return
    answering_model(write_tiny_model("qwen3", folder / "tiny"), folder / "backbone")
    backbone = [f"model.backbone={folder / 'backbone'}", "model.max_document_tokens=4096"]
    PointwiseModel.create(load_config(None, [*settings, *backbone, "rerank.score=yes_no"])).save(folder / "checkpoint")
    export_cross_encoder(folder / "checkpoint", folder / "cross-encoder")


def pairs(queries: int, candidates: int) -> list[tuple[str, list[str]]]:
    """Of SciFact's titles and abstracts where they are, else of the sample's words; every length equally often."""
    random = np.random.default_rng(0)
    if SHARED.is_dir():
        with (SHARED / "data/scifact/corpus.jsonl").open() as file:
            texts = [f"{row['title']} {row['text']}" for row in map(json.loads, file)]
    else:
        from colmrl.data.sample import vocabulary

        texts = [" ".join(random.choice(vocabulary(), 400)) for _ in range(4 * candidates)]
    documents = [" ".join(text.split()[: random.integers(*WORDS)]) for text in texts]
    chosen = [random.choice(len(documents), candidates, replace=False) for _ in range(queries)]
    asked = [" ".join(texts[places[0]].split()[:12]) for places in chosen]
    return [(query, [documents[place] for place in places]) for query, places in zip(asked, chosen, strict=True)]


def answering_model(folder: Path, out: Path) -> None:
    """A tiny model's tokenizer has no words for yes and no."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    tokenizer.add_tokens(["yes", "no"])
    torch.manual_seed(0)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.get_input_embeddings().weight.data[-2:].normal_(std=0.1)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def measure(folder: Path, case: str, rounds: int) -> list[dict[str, Any]]:
    found: dict[str, list[dict[str, float]]] = {}
    with ExitStack() as stack:
        workers = {}
        for tool in CASES[case]:
            log = folder / f"{tool}.log"
            command: list[str | Path] = [sys.executable, __file__, "--measure", tool, folder]
            workers[tool] = stack.enter_context(working(command, log)), log
            ask(*workers[tool])
            ask(*workers[tool], "warm up")
        for number in range(rounds):
            print(f"{case}, round {number + 1} of {rounds}", flush=True)
            for tool, worker in workers.items():
                found.setdefault(tool, []).append(ask(*worker, "run"))
    scores = {tool: np.load(folder / f"{tool}.npy") for tool in found}
    rows = []
    for tool, runs in found.items():
        median = {name: statistics.median(one[name] for one in runs) for name in runs[0]}
        row = {"case": case, "tool": tool, "version": metadata.version(tool.partition(":")[0])}
        row |= {"pairs_per_cpu_s": len(scores[tool]) / median["cpu_s"], "median_s": median["cpu_s"]}
        row["ratio"] = median["cpu_s"] / statistics.median(one["cpu_s"] for one in found[BASE])
        row |= {"wall_s": median["wall_s"], "peak_mib": median["peak_mib"]}
        if tool != BASE:
            difference = float(np.abs(scores[tool] - scores[BASE]).max())
            row |= {"max_difference": difference, "equal": difference <= EQUAL}
        rows.append(row)
    return rows


def answer(tool: str, folder: Path) -> None:
    import torch

    torch.set_num_threads(1)
    asked = [(query, documents) for query, documents in json.loads((folder / "asked.json").read_text())]
    make = theirs if tool.startswith("sentence") else whole if tool == WHOLE else ours

    def run(_: str) -> dict[str, float]:
        score = make(tool, folder, asked)  # anew: tokens that ours keeps of documents would otherwise be there already
        trimmed()
        scores, found = measured(score)
        np.save(folder / f"{tool}.npy", scores)
        return found

    answering({"tool": tool}, run)


def ours(tool: str, folder: Path, asked: list[tuple[str, list[str]]]) -> Scores:
    from colmrl.data.records import Document, Query
    from colmrl.reranking.reranker import open_reranker

    reranker = open_reranker(folder / "checkpoint", device="cpu")
    records = [(Query("q", query), [Document(text, text) for text in texts]) for query, texts in asked]
    return lambda: np.concatenate([reranker.score(query, documents) for query, documents in records])


def whole(tool: str, folder: Path, asked: list[tuple[str, list[str]]]) -> Scores:
    import torch

    from colmrl.data.records import Document, Query
    from colmrl.models.inputs import tokens
    from colmrl.reranking.description import read_description
    from colmrl.reranking.pointwise import PointwiseModel

    model = PointwiseModel.load(folder / "checkpoint", read_description(folder / "checkpoint")).eval()

    @torch.inference_mode()
    def score() -> np.ndarray:
        found = []
        for query, texts in asked:
            prompts = model.prompt.whole(Query("q", query), [Document(text, text) for text in texts])
            order = sorted(range(len(prompts)), key=lambda place: tokens(prompts[place]))
            scores = np.zeros(len(prompts), dtype=np.float32)
            for start in range(0, len(order), BATCH):
                places = order[start : start + BATCH]
                batch = model.prompt.inputs.join([prompts[place] for place in places])
                scores[places] = model(batch).sigmoid().numpy()
            found.append(scores)
        return np.concatenate(found)

    return score


def theirs(tool: str, folder: Path, asked: list[tuple[str, list[str]]]) -> Scores:
    from sentence_transformers import CrossEncoder

    exported = folder / "cross-encoder"
    model = CrossEncoder(str(exported), device="cpu") if exported.exists() else with_head(folder / "checkpoint")
    each = [[(query, text) for text in texts] for query, texts in asked]
    given = each if tool.endswith("at a time") else [[pair for some in each for pair in some]]
    return lambda: np.concatenate([model.predict(some, batch_size=BATCH, show_progress_bar=False) for some in given])


def with_head(checkpoint: Path) -> Any:
    """Of a classifier's checkpoint: BERT, its first token, our linear layer."""
    import shutil

    from safetensors.torch import load_file
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from torch import nn

    folder = checkpoint.with_name("with-tokenizer")
    if not folder.exists():
        shutil.copytree(checkpoint / "processor", folder)
        shutil.copytree(checkpoint / "backbone", folder, dirs_exist_ok=True)
    transformer = Transformer(str(folder), max_seq_length=512)
    weights = load_file(checkpoint / "classifier.safetensors")
    width = weights["weight"].shape[1]
    names = {"module_input_name": "sentence_embedding", "module_output_name": "scores"}
    head = Dense(width, 1, activation_function=nn.Identity(), **names)
    head.linear.load_state_dict(weights)
    return CrossEncoder(modules=[transformer, Pooling(width, "cls"), head], device="cpu")


if __name__ == "__main__":
    main()
