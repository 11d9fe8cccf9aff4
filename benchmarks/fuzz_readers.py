"""Every reader of files that others write, with small whole files to begin from: what benchmarks/fuzz.py feeds."""

import functools
import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from colmrl.configure import load_config
from colmrl.data.beir import read_corpus, read_qrels, read_queries, read_top_ranked
from colmrl.data.media import open_image, picture_size
from colmrl.data.qilin_rows import parse_cell, read_qilin_qrels
from colmrl.data.sequences import read_sequences
from colmrl.data.table_collection import read_tables
from colmrl.data.tables import open_tables
from colmrl.data.triples import read_triples
from colmrl.data.video import frame_size
from colmrl.data.video_pairs import read_video_pairs
from colmrl.evaluation.each_query import read_each
from colmrl.evaluation.frontier_report import read_peers
from colmrl.evaluation.leaderboard import leaderboard
from colmrl.evaluation.run import read_results
from colmrl.lineage import read_rounds
from colmrl.models.retriever import read_description
from colmrl.models.weights import read_tensors
from colmrl.preparing.amazon import prepare_amazon
from colmrl.preparing.describe import read_part
from colmrl.preparing.folder import PreparedFolder
from colmrl.preparing.pdf import prepare_pdf
from colmrl.reranking.description import read_description as read_reranker
from colmrl.reranking.runs import read_run
from colmrl.scoring import MultiVectors
from colmrl.search.index_files import read_facts
from colmrl.store import ArraySpec, EmbeddingStore, Manifest, begin
from colmrl.view import View


@dataclass(frozen=True)
class Reader:
    """`read(path)` reads the file at FOLDER/`file` after `prepare(folder)`, which writes what lies beside it."""

    file: str
    seeds: tuple[bytes, ...]
    read: Callable[[Path], object]
    prepare: Callable[[Path], object] = lambda folder: None


def lines(*rows: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def picture(folder: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(folder / "a.png")


def encoded(kind: str, mode: str = "RGB", **more: Any) -> bytes:
    held = io.BytesIO()
    Image.new(mode, (9, 7), 1).save(held, kind, **more)
    return held.getvalue()


def moving() -> bytes:
    """A video of three frames."""
    import av

    held = io.BytesIO()
    with av.open(held, "w", format="avi") as container:
        stream: Any = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for shade in (0, 100, 200):
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (32, 32), (shade,) * 3))))
        container.mux(stream.encode())
    return held.getvalue()


def small_store(folder: Path) -> None:
    specs = (ArraySpec("single", 8), ArraySpec("multi", 8), ArraySpec("multi", 4, 2, "int8"))
    wanted = Manifest("documents", "f", "c", "d", 2, "", specs, (8, 4), (8, 4))
    writer, rng = begin(folder, wanted, {"a": "1", "b": "2", "c": "3"}), np.random.default_rng(0)
    for number in writer.missing():
        n = writer.manifest.shards[number].records
        unit = rng.standard_normal((3 * n, 8)).astype(np.float32)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        import torch

        items = MultiVectors(torch.from_numpy(unit), torch.arange(0, 3 * n + 1, 3))
        pooled = MultiVectors(items.truncate(4).vectors[: 2 * n], torch.arange(0, 2 * n + 1, 2))
        writer.write(number, {"single": unit[:n], "multi": items, specs[2].name: pooled})
    writer.finish()


def read_store(folder: Path) -> None:
    store = EmbeddingStore(folder)
    for view in (View("single", 4), View("multi", 4), View("multi", 4, 2, "int8")):
        list(getattr(store, view.head)(view))


def index_of(folder: Path) -> None:
    (folder / "measured.json").write_text('{"build_s": 1, "query_ms": 1, "exact_ms": 1}')


def table(folder: Path) -> bytes:
    import pyarrow
    import pyarrow.parquet

    held = io.BytesIO()
    cell = {"bytes": encoded("PNG"), "path": None}
    pyarrow.parquet.write_table(pyarrow.table({"query": ["a", "b"], "image": [cell, cell]}), held)
    return held.getvalue()


def read_table(path: Path) -> None:
    open_tables.cache_clear()
    collection = read_tables(str(path), None, str(path.parent), True)
    for document in collection.documents:
        [open_image(image) for image in document.images]


def whole(read: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Have the records read too, pictures left alone."""

    def run(path: Path) -> None:
        found = read(path)
        for kind in ("documents", "queries"):
            list(getattr(found, kind))
        for split in found.qrels:
            found.judged(split)

    return run


def pdfs(path: Path) -> None:
    import shutil

    shutil.rmtree(path.parent / "out", ignore_errors=True)
    prepare_pdf(path, path.parent / "out", dpi=20)


def reviews(path: Path) -> None:
    import shutil

    shutil.rmtree(path.parent / "out", ignore_errors=True)
    prepare_amazon(path, path.parent / "meta.json", path.parent / "out", min_uc=1, min_sc=1)


REVIEW = {"reviewerID": "u", "asin": "i", "overall": 5.0, "unixReviewTime": 9}
META = {"asin": "i", "title": "t", "imageURL": [], "categories": [["a", "b"]], "description": "d"}
RESULTS = {"command": "c", "commit": None, "seed": 0, "rows": [{"round": 0, "view": "single@8"}]}
RESULTS["rows"][0] |= {"metric": "ndcg_at_10", "value": 0.5}
EACH = {"judged": {"queries": 1, "documents": 2, "hash": "h"}, "queries": ["q"]}
EACH |= {"rows": [{"round": 0, "view": "single@8", "ndcg_at_10": [0.5]}]}
INDEX = {"store": "s", "stamp": "t", "view": "single@8", "type": "flat", "settings": {}, "seed": 0, "documents": 1}
INDEX |= {"vectors": 1, "lists": None, "probes": None, "candidates": None, "training_vectors": 0, "recall": {"10": 1}}
INDEX |= {"queries": 1, "queries_of": "queries", "bytes": 1, "hash": "h", "threads": 1, "faiss": "1", "command": "c"}
INDEX |= {"commit": None, "format": 1}
DESCRIPTION = {"model": {"backbone": "b"}, "lora": {}, "single": {"dims": [8]}, "multi": {"dims": [8]}}
RERANKER = {"task": "pointwise", "model": {"backbone": "b"}, "lora": {}, "rerank": {}, "show": {}}
ROUND = {"round": 1, "links": [{"what": "store", "path": "p", "hash": "h", "of": ["x"]}]}
TENSORS = b'\x40\0\0\0\0\0\0\0{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'.ljust(72) + bytes(8)
PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 90 90]/Contents 4 0 R/Resources<</Font<</F<</Type/Font/Subtype"
    b"/Type1/BaseFont/Helvetica>>>>>>>>endobj\n4 0 obj<</Length 35>>stream\nBT /F 9 Tf 9 9 Td (a page) Tj ET    \n"
    b"endstream endobj\ntrailer<</Root 1 0 R>>\n%%EOF"
)
CORPUS = lines({"_id": "a", "text": "t", "title": "u", "image": ["a.png"], "meta": {"k": 1}}, {"_id": "b", "text": "x"})
TRIPLE = {"query": "q", "pos": "a.png", "negs": ["b", "c"], "pos_score": 0.5, "neg_scores": [0.1, 2]}
NAMED = TRIPLE | {"query_id": "q", "pos_id": "a", "neg_ids": ["b", "a"]}
PAIRS = lines({"query": "a text", "target": "v"}, {"query": "v", "target": "other text"})
VIDEO = {"video_id": "v", "title": "t", "caption": "c", "images": ["a.png"], "ocr": "", "asr": None}
ITEM = {"item": "i", "text": "t", "image_path": "a.png", "caption": "c"}
RECIPE = (
    b"model:\n  backbone: x\nsingle: {dims: [8, 4]}\ntrain: {epochs: 2, learning_rate: 1e-3}\nmine:\n  filters: []\n"
)


def beside(**files: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        picture(folder)
        for name, content in files.items():
            path = folder / name.replace("__", "/").replace("_DOT_", ".")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)

    return write


KNOWN = ({"q": 0}, {"a": 0, "b": 1})
ITEMS = lines(ITEM, {**ITEM, "item": "j"})
READERS: dict[str, Reader] = {
    "corpus": Reader("corpus.jsonl", (CORPUS,), lambda path: list(read_corpus(path.parent)), picture),
    "queries": Reader("queries.jsonl", (CORPUS,), lambda path: list(read_queries(path.parent)), picture),
    "qrels": Reader(
        "qrels/t.tsv", (b"query-id\tcorpus-id\tscore\nq\ta\t1\n",), lambda p: read_qrels(p.parents[1], "t", *KNOWN)
    ),
    "top ranked": Reader(
        "top_ranked/t.jsonl",
        (lines({"query-id": "q", "corpus-ids": ["a"]}),),
        lambda p: read_top_ranked(p.parents[1], "t", *KNOWN),
    ),
    "mined triples": Reader("t.jsonl", (lines(NAMED),), lambda path: read_triples(path, *KNOWN), picture),
    "triples": Reader("t.jsonl", (lines(TRIPLE),), read_table, picture),
    "csv": Reader("train.csv", (b"anchor,positive\na,b\nc,d\n",), read_table, picture),
    "parquet": Reader("train.parquet", (table(Path()),), read_table),
    "video pairs": Reader(
        "train_data.jsonl",
        (PAIRS,),
        whole(lambda path: read_video_pairs(path.parent, "{title}", 2)),
        beside(video_meta_DOT_jsonl=lines(VIDEO)),
    ),
    "video meta": Reader(
        "video_meta.jsonl",
        (lines(VIDEO),),
        whole(lambda path: read_video_pairs(path.parent, "{title}", 2)),
        beside(train_data_DOT_jsonl=PAIRS),
    ),
    "item meta": Reader(
        "item_meta.jsonl",
        (ITEMS,),
        whole(lambda path: read_sequences(path.parent)),
        beside(user_sequence_DOT_txt=b"u i j i\n"),
    ),
    "sequences": Reader(
        "user_sequence.txt",
        (b"u i j i\nw j i\n",),
        whole(lambda path: read_sequences(path.parent)),
        beside(item_meta_DOT_jsonl=ITEMS),
    ),
    "qilin cell": Reader(
        "cell",
        (b"[{'note_idx': 1, 'position': 0, 'click': 1, 'page_time': nan}]", b"array([1, 2], dtype=int64)"),
        lambda path: _cell(path),
    ),
    "qilin qrels": Reader("q.csv", (b"qid,pid\n1,2\n3,4\n",), read_qilin_qrels),
    "reviews": Reader(
        "r.json",
        (lines(REVIEW), gzip.compress(lines(REVIEW))),
        reviews,
        beside(meta_DOT_json=lines(META)),
    ),
    "yaml": Reader("c.yaml", (RECIPE,), load_config),
    "override": Reader("o", (b"train.epochs=2", b"mine.filters=[]"), lambda path: _override(path)),
    "picture": Reader(
        "a.png",
        (
            encoded("PNG"),
            encoded("JPEG", quality=50),
            encoded("GIF", "L"),
            encoded("TIFF"),
            encoded("WEBP"),
            encoded("BMP"),
        ),
        lambda path: (picture_size(str(path)), open_image(str(path), 8)),
    ),
    "video": Reader("a.avi", (moving(),), lambda path: frame_size(str(path))),
    "pdf": Reader("a.pdf", (PDF,), pdfs),
    "store manifest": Reader("manifest.json", (), lambda path: read_store(path.parent), small_store),
    "store ids": Reader("ids-00000.jsonl", (), lambda path: read_store(path.parent), small_store),
    "store vectors": Reader("single-00000.npy", (), lambda path: read_store(path.parent), small_store),
    "store offsets": Reader("multi-00000.offsets.npy", (), lambda path: read_store(path.parent), small_store),
    "index manifest": Reader("manifest.json", (json.dumps(INDEX).encode(),), lambda p: read_facts(p.parent), index_of),
    "safetensors": Reader("w.safetensors", (TENSORS,), read_tensors),
    "checkpoint": Reader(
        "colmrl.json", (json.dumps(DESCRIPTION).encode(),), lambda path: read_description(path.parent)
    ),
    "reranker": Reader("reranker.json", (json.dumps(RERANKER).encode(),), lambda path: read_reranker(path.parent)),
    "run file": Reader("r.trec", (b"q Q0 a 1 0.5 tag\nq Q0 b 2 0.25 tag\n",), lambda path: list(read_run(path))),
    "results": Reader("results.json", (json.dumps(RESULTS).encode(),), read_results),
    "leaderboard": Reader(
        "results.json", (json.dumps(RESULTS).encode(),), lambda path: leaderboard([str(path.parent)], "ndcg_at_10")
    ),
    "each query": Reader(
        "results.queries.json", (json.dumps(EACH).encode(),), lambda path: read_each(path.parent / "results.json")
    ),
    "peers": Reader("p.csv", (b"name,bytes,ndcg_at_5\na,100,0.5\n",), read_peers),
    "lineage": Reader("round-1/manifest.json", (json.dumps(ROUND).encode(),), lambda p: read_rounds(p.parents[1])),
    "descriptions": Reader("p.jsonl", (lines({"item": "i", "text": "t"}),), read_part),
    "prepared folder": Reader(
        "manifest.json",
        (json.dumps({"kind": "pdf", "settings": {"a": 1}, "finished": False}).encode(),),
        lambda path: PreparedFolder(path.parent, "pdf", {"a": 1}).start(),
    ),
}


def _cell(path: Path) -> None:
    """A cell's own errors are ValueErrors, which its row turns into InputErrors."""
    try:
        parse_cell(path.read_bytes().decode())
    except (ValueError, OverflowError) as error:
        from colmrl.errors import InputError

        raise InputError(str(error)) from None


def _override(path: Path) -> None:
    load_config(None, [path.read_bytes().decode(errors="replace")])


@functools.cache
def seeds_of(name: str, folder: Path) -> tuple[bytes, ...]:
    """The reader's, or the file that `prepare` wrote in `folder`."""
    reader = READERS[name]
    return reader.seeds or ((folder / reader.file).read_bytes(),)
