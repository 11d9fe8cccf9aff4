"""Quality against size: nDCG for dims × vectors × precision, and what is lost by each way to pool tokens.

    python benchmarks/run.py sizes [--shared ../shared] [--work outputs/sizes] [--seeds 3] [--only shapes]

shapes    the sample's 256 unseen pictures of 64 × 64, a tiny InternVL trained on the others by the recipe `demo` (400
          steps), means over seeds
pages     the same models and pictures, four to a page: 64 pages of five tiles, the fifth the page as a whole
scifact   MiniLM as it was published; multi: its own token vectors, turned by a random rotation, so that 384 dims score
          exactly as they do and fewer are a random projection

Quality is the same on any machine; nothing is timed. Writes benchmarks/results/sizes.json, prints tables.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from colmrl import provenance
from colmrl.coding import code
from colmrl.configure import load_config
from colmrl.data.reading import read_collection
from colmrl.data.records import Document
from colmrl.encoding import embed, encode
from colmrl.evaluation.metrics import mean, per_query
from colmrl.models.retriever import Embeddings, Retriever
from colmrl.reduction import pool_records, pooled
from colmrl.scoring import MultiVectors, dot, maxsim, truncate
from colmrl.store import EmbeddingStore
from colmrl.view import Precision, View

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "binary")
WEIGHTS = (0.1, 0.25, 0.5, 1.0, 2.0)


class Sizes(NamedTuple):
    """What is tried. `few`: budgets that are tried at every dim and precision."""

    single: tuple[int, ...]
    multi: tuple[int, ...]
    budgets: tuple[int, ...]
    few: tuple[int, ...]
    weights: tuple[float, ...]


SHAPES = Sizes((128, 64, 32, 16), (128, 64, 32, 16), (12, 8, 6, 4, 2), (8, 4), WEIGHTS)
PAGES = SHAPES._replace(budgets=(48, 32, 24, 16, 8), few=(32, 16))
SCIFACT = Sizes((384,), (384, 128), (64, 32, 16, 8, 4), (32,), ())


class Tried(NamedTuple):
    pooling: str
    view: View


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="holds models/ and data/scifact")
    parser.add_argument("--work", type=Path, default=Path("outputs/sizes"), help="what is trained and encoded is kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=["shapes", "pages", "scifact"])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/sizes.json"))
    options = parser.parse_args([part for part in argv if part])
    torch.set_num_threads(1)
    found: dict[tuple[str, Tried], list[dict[str, float]]] = defaultdict(list)
    for case in [options.only] if options.only else ["shapes", "pages", "scifact"]:
        if case == "scifact":
            for tried, numbers in scifact(options.work / "scifact", options.shared.resolve()):
                found[case, tried].append(numbers)
            continue
        for seed in range(options.seeds):
            for tried, numbers in pictures(options.work / f"demo-{seed}", seed, case == "pages"):
                found[case, tried].append(numbers)
    rows = [row(case, tried, runs) for (case, tried), runs in found.items()]
    print("\n".join(tables(rows)))
    machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    content = {"command": provenance.command(), "commit": provenance.commit(), "machine": machine, "rows": rows}
    options.out.write_text(json.dumps(content, indent=1) + "\n")


def row(case: str, tried: Tried, runs: list[dict[str, float]]) -> dict[str, Any]:
    numbers = {name: statistics.fmean(run[name] for run in runs) for name in runs[0]}
    numbers["ndcg_at_10_deviation"] = statistics.stdev(run["ndcg_at_10"] for run in runs) if len(runs) > 1 else 0.0
    return {"case": case, "tool": tried.pooling, "version": str(tried.view), "runs": len(runs)} | numbers


def tables(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """As docs/sizes.md shows them: nDCG@10, and the bytes of a document."""
    for case in dict.fromkeys(each["case"] for each in rows):
        views = [(each, View.parse(each["version"])) for each in rows if each["case"] == case]
        plain = {view: each for each, view in views if each["tool"] in ("", "all", "ward")}
        yield f"\n{case}: nDCG@10 (bytes a document)\n\n| view | fp32 | fp16 | int8 | binary |\n|---|---|---|---|---|"
        for view in plain:
            found = [plain.get(replace(view, precision=precision)) for precision in PRECISIONS]
            if view.precision == "fp32" and all(found):
                cells = [f"{each['ndcg_at_10']:.3f} ({each['bytes_per_document']:,.0f})" for each in found if each]
                yield f"| `{view}` | {' | '.join(cells)} |"
        full = max(view.dim for view in plain if view.head == "multi")
        chosen = {
            (each["tool"], view.vectors): each
            for each, view in views
            if str(replace(view, vectors=None)) == f"multi@{full}"
        }
        budgets = sorted({budget for _, budget in chosen if budget}, reverse=True)
        yield f"\n{case}: nDCG@10 of multi@{full} pooled to\n\n| by | {' | '.join(map(str, budgets))} |"
        yield f"|---{'|---' * len(budgets)}|"
        for tool in dict.fromkeys(tool for tool, budget in chosen if budget):
            cells = [f"{chosen[tool, budget]['ndcg_at_10']:.3f}" for budget in budgets]
            yield f"| {tool} | {' | '.join(cells)} |"


def pictures(folder: Path, seed: int, paged: bool) -> Iterator[tuple[Tried, dict[str, float]]]:
    checkpoint = folder / "round-1/checkpoint"
    if not checkpoint.is_dir():
        run = [
            "loop",
            "--config",
            "demo",
            "--rounds",
            "1",
            f"seed={seed}",
            f"output={folder}",
            "eval.views=[single@128]",
        ]
        subprocess.run([sys.executable, "-m", "colmrl", *run], check=True)
    data = folder / "data/shapes/test"
    collection = read_collection(str(data), load_config(None).data)
    qrels = {query: dict(judged) for query, judged in collection.judged("test").items()}
    documents = list(collection.documents)
    model = Retriever.load(checkpoint).eval()
    if paged:
        documents, place = pages_of(documents, folder / "pages", seed)
        qrels = {query: {place[name]: grade for name, grade in judged.items()} for query, judged in qrels.items()}
        model.inputs.processor.image_processor.max_patches = 4
    queries = embed(model, "queries", list(collection.queries), 32)
    blocks = [embed(model, "documents", documents, 32)]
    names = list(collection.queries.ids), [document.id for document in documents]
    yield from judged_sizes(queries, blocks, names, qrels, PAGES if paged else SHAPES)


def pages_of(documents: Sequence[Document], folder: Path, seed: int) -> tuple[list[Document], dict[str, str]]:
    """Four pictures drawn for each page; and the page of each picture."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    drawn = random.Random(seed).sample(list(documents), len(documents))
    pages, place = [], {}
    for start in range(0, len(drawn), 4):
        page = Image.new("RGB", (128, 128))
        for i, document in enumerate(drawn[start : start + 4]):
            page.paste(Image.open(document.images[0]).convert("RGB"), (i % 2 * 64, i // 2 * 64))
            place[document.id] = f"page-{start // 4}"
        page.save(folder / f"{start // 4}.png")
        pages.append(Document(f"page-{start // 4}", images=(str(folder / f"{start // 4}.png"),)))
    return pages, place


def scifact(folder: Path, shared: Path) -> Iterator[tuple[Tried, dict[str, float]]]:
    overrides = [f"model.backbone={shared}/models/all-MiniLM-L6-v2", f"data.path={shared}/data/scifact", "device=cpu"]
    overrides += ["model.tuning=frozen", "multi.dims=[384,128]", "threads=1", "encode.precision=fp16"]
    config = load_config("minilm-scifact", [*overrides, f"output={folder}"])
    if not (folder / "checkpoint").is_dir():
        model = Retriever.create(config)
        assert model.multi is not None
        torch.manual_seed(0)
        with torch.no_grad():
            model.multi.projection.weight.copy_(torch.linalg.qr(torch.randn(384, 384))[0])
        model.save(folder / "checkpoint")
    store = encode(config, folder / "checkpoint", config.data.path, folder / "store")
    documents, asked = EmbeddingStore(store / "documents"), EmbeddingStore(store / "queries")
    qrels = read_collection(config.data.path, config.data).judged("test")
    single, multi = View.parse("single@384:fp16"), View.parse("multi@384:fp16")
    rows = [i for i, name in enumerate(asked.ids) if name in qrels]
    queries = Embeddings(torch.from_numpy(asked.single_rows(single, rows)), asked.multi_rows(multi, rows))
    blocks = (
        Embeddings(torch.from_numpy(s), m)
        for s, m in zip(documents.single(single), documents.multi(multi), strict=True)
    )
    yield from judged_sizes(queries, blocks, ([asked.ids[i] for i in rows], documents.ids), qrels, SCIFACT)


def judged_sizes(
    queries: Embeddings, blocks: Any, names: tuple[list[str], list[str]], qrels: Any, sizes: Sizes
) -> Iterator[tuple[Tried, dict[str, float]]]:
    """nDCG of everything that is tried; documents come a block at a time."""
    assert queries.single is not None and queries.multi is not None
    scores: dict[Tried, list[torch.Tensor]] = defaultdict(list)
    counts: dict[Tried, list[int]] = defaultdict(list)
    for block in blocks:
        for tried, vectors in reduced(block, sizes):
            if isinstance(vectors, MultiVectors):
                scores[tried].append(maxsim(queries.multi.truncate(tried.view.dim), vectors))
                counts[tried] += vectors.counts.tolist()
            else:
                scores[tried].append(dot(truncate(queries.single, tried.view.dim), vectors))
                counts[tried] += [1]
    for tried, parts in scores.items():
        best = torch.cat(parts, 1).topk(min(100, len(names[1])), dim=1)
        run = {
            query: {names[1][i]: score for i, score in zip(places, values, strict=True)}
            for query, places, values in zip(names[0], best.indices.tolist(), best.values.tolist(), strict=True)
        }
        numbers = mean(per_query(run, qrels))
        kept = statistics.fmean(counts[tried])
        yield (
            tried,
            {
                "ndcg_at_10": numbers["ndcg_at_10"],
                "ndcg_at_5": numbers["ndcg_at_5"],
                "vectors": kept,
                "bytes_per_document": tried.view.bytes_per_document(kept),
            },
        )


def reduced(block: Embeddings, sizes: Sizes) -> Iterator[tuple[Tried, torch.Tensor | MultiVectors]]:
    assert block.single is not None and block.multi is not None
    for dim in sizes.single:
        for precision in PRECISIONS:
            yield Tried("", View("single", dim, None, precision)), kept(block.single, dim, precision)
    for dim in sizes.multi:
        for precision in PRECISIONS:
            yield Tried("all", View("multi", dim, None, precision)), kept_items(block.multi, dim, precision)
    full = max(sizes.multi)
    for pooling, budget, items in pools(block.multi, sizes):
        yield Tried(pooling, View("multi", full, budget)), kept_items(items, full, "fp32")
        if budget in sizes.few and pooling == "ward":
            for dim in sizes.multi:
                for precision in PRECISIONS:
                    if (dim, precision) != (full, "fp32"):
                        view = View("multi", dim, budget, precision)
                        yield Tried(pooling, view), kept_items(items, dim, precision)


def pools(items: MultiVectors, sizes: Sizes) -> Iterator[tuple[str, int, MultiVectors]]:
    for weight in (0.0, *sizes.weights):
        for budget, fewer in pooled(items, sizes.budgets, weight).items():
            yield f"ward, position × {weight:g}" if weight else "ward", budget, fewer
    for budget in sizes.budgets:
        for method in ("mean", "random"):
            vectors, offsets = pool_records(items.vectors.numpy(), items.offsets.numpy(), budget, None, method)
            yield method, budget, MultiVectors(torch.from_numpy(vectors), torch.from_numpy(offsets))


def kept(vectors: torch.Tensor, dim: int, precision: Precision) -> torch.Tensor:
    return code(truncate(vectors, dim), precision).decode()


def kept_items(items: MultiVectors, dim: int, precision: Precision) -> MultiVectors:
    return MultiVectors(kept(items.vectors, dim, precision), items.offsets)
