"""Data and stores for scale.py, at 1×, 4× and 16× documents: folder/FOLD/…"""

import json
from pathlib import Path

import numpy as np

FOLDS = (1, 4, 16)
SINGLE, MULTI, VECTORS = 256, 64, 8
QUERIES, TOKENS = 2_000, 6
SHARD = 1024
PICTURE_SHARD = 128


def prepare_pictures(folder: Path, base: int) -> None:
    """The generated sample, and one checkpoint of a tiny InternVL as it is drawn."""
    from colmrl.configure import load_config
    from colmrl.data.sample import write_sample
    from colmrl.models.retriever import Retriever
    from colmrl.models.tiny import write_tiny_model

    model = write_tiny_model("internvl", folder / "tiny")
    Retriever.create(load_config(None, [f"model.backbone={model}"])).save(folder / "checkpoint")
    for fold in FOLDS:
        write_sample(folder / f"{fold}" / "pictures", 0, base * fold // 8, 1, 1)


def prepare_stores(folder: Path, base: int) -> None:
    """Query n is answered by document n; queries are as many at every size."""
    for fold in FOLDS:
        place = folder / f"{fold}"
        count = base * fold
        rng = np.random.default_rng(0)
        centres = rng.normal(size=(max(2, count // 100), SINGLE)).astype(np.float32)
        single = centres[rng.integers(len(centres), size=count)]
        single += rng.normal(scale=0.7, size=single.shape).astype(np.float32)
        tokens = rng.normal(size=(count, VECTORS, MULTI)).astype(np.float32) + single[:, None, :MULTI]
        asked = min(QUERIES, base)
        noise = rng.normal(size=(asked, SINGLE)).astype(np.float32)
        query = single[:asked] + noise, tokens[:asked, :TOKENS] + 0.5 * noise[:, None, :MULTI]
        write_data(place / "data", count, asked)
        write_vectors(place, "documents", single, tokens)
        write_vectors(place, "queries", *query)


def write_data(data: Path, documents: int, queries: int) -> None:
    (data / "qrels").mkdir(parents=True)
    for name, letter, count in (("corpus", "d", documents), ("queries", "q", queries)):
        lines = (json.dumps({"_id": f"{letter}{n}", "text": f"{letter} {n}"}) + "\n" for n in range(count))
        (data / f"{name}.jsonl").write_text("".join(lines))
    header, rows = "query-id\tcorpus-id\tscore\n", [f"q{n}\td{n}\t1\n" for n in range(queries)]
    (data / "qrels/train.tsv").write_text(header + "".join(rows))
    (data / "qrels/test.tsv").write_text(header + "".join(rows[:500]))


def write_vectors(folder: Path, kind: str, single: np.ndarray, tokens: np.ndarray) -> None:
    import torch
    from made_stores import write_store

    from colmrl.scoring import MultiVectors
    from colmrl.store import ArraySpec

    single = single / np.linalg.norm(single, axis=-1, keepdims=True)
    tokens = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)

    def shard(some: slice) -> dict[str, object]:
        vectors = torch.from_numpy(tokens[some])
        offsets = torch.arange(len(vectors) + 1) * vectors.shape[1]
        return {"single": single[some], "multi": MultiVectors(vectors.flatten(0, 1), offsets)}

    write_store(folder, kind, (ArraySpec("single", SINGLE), ArraySpec("multi", MULTI)), SHARD, shard)
