"""The stages that scale.py measures; each imports what it needs before the clock starts."""

from collections.abc import Callable
from pathlib import Path

import faiss
import scale_data
import torch

from colmrl.configure import load_config
from colmrl.view import View

ONE_AT_A_TIME, FEW = 200, 20  # queries; few where each goes through all multi-vectors
STEPS = 12
Stage = tuple[Callable[[], object], int, Path | None, float]
_COMMON = ("device=cpu", "threads=1")


def prepare(stage: str, folder: Path) -> Stage:
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    words = stage.replace(",", "").split()
    match words[0]:
        case "encode":
            return _encode(folder)
        case "train":
            return _train(folder)
        case "index":
            return _index(folder, words[1], words[2])
        case "mine":
            return _mine(folder, words[1])
        case "search":
            return _search(folder, words[1], words[2])
        case "eval":
            return _judge(folder, words[1])
    raise ValueError(stage)


def _encode(folder: Path) -> Stage:
    from colmrl.encoding import encode

    out = folder / "encoded"
    config = load_config(None, [*_COMMON, f"encode.shard_size={scale_data.PICTURE_SHARD}"])
    pictures = folder / "pictures"
    encode(config, folder.parent / "checkpoint", pictures / "test", folder / "warm")
    vectors = 4 * (128 + 16 * 128)  # single@128; sixteen image tokens of 128 dims
    return lambda: encode(config, folder.parent / "checkpoint", pictures / "train", out), 1, out, vectors


def _train(folder: Path) -> Stage:
    from colmrl.training.run import train

    options = [
        f"model.backbone={folder.parent / 'tiny'}",
        f"data.path={folder / 'pictures/train'}",
        "train.negatives=0",
    ]
    options += [f"train.max_steps={STEPS}", f"output={folder / 'run'}"]
    config = load_config(None, [*_COMMON, *options])
    return lambda: train(config), STEPS, folder / "run", 0


def _index(folder: Path, kind: str, view: str) -> Stage:
    from colmrl.search.building import build_indexes

    out = folder / f"indexes-{kind}"
    config = load_config(None, [*_COMMON, f"index.type={kind}", "index.gpu=false", "index.queries=10"])
    return lambda: build_indexes(config, folder / "store", [View.parse(view)], out), 1, out, _bytes(view)


def _mine(folder: Path, view: str) -> Stage:
    import matplotlib.figure  # noqa: F401

    from colmrl.mining import mine

    config = load_config(None, [*_COMMON, f"mine.view={view}", "mine.gpu=false", "mine.filters=[]"])
    place = folder / "mined"
    place.mkdir()
    return lambda: mine(config, folder / "store", place / "triples.jsonl"), 1, place, _bytes(view)


def _search(folder: Path, view: str, way: str) -> Stage:
    """Queries one at a time, as people ask; opening the searcher is not counted, its memory is."""
    from colmrl.search import Asked, Plan, open_searcher
    from colmrl.store import EmbeddingStore

    queries = EmbeddingStore(folder / "store/queries")
    rows = range(min(FEW if (view[0], way) == ("m", "exact") else ONE_AT_A_TIME, len(queries)))
    asked = Asked.of_store(queries, rows)
    index = None if way == "exact" else folder / f"indexes-{way}" / f"{View.parse(view).slug}-{way}"
    documents = EmbeddingStore(folder / "store/documents")
    searcher = open_searcher(documents, Plan.parse(view), False, index)
    searcher.rank(asked.rows([0]), 10)

    def ask() -> None:
        for row in rows:
            searcher.rank(asked.rows([row]), 10)

    return ask, len(rows), None, _bytes(view)


def _judge(folder: Path, view: str) -> Stage:
    from colmrl.evaluation.run import judge

    config = load_config(None, [*_COMMON, "eval.gpu=false"])
    return lambda: judge(config, folder / "store", [View.parse(view)]), 1, None, _bytes(view)


def _bytes(view: str) -> float:
    return View.parse(view).bytes_per_document(1 if view.startswith("single") else scale_data.VECTORS)
