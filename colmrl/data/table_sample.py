"""The sample pictures as tables: query and image in parquet, and triples that name a table's rows by hub-style ids."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from colmrl.data.beir import read_beir
from colmrl.data.convention_rows import write_convention
from colmrl.data.jsonl import write_rows
from colmrl.data.sample import write_sample
from colmrl.data.writing import encoded, write_parquet
from colmrl.files import new_folder

NAME = "colmrl/shapes"  # of the data set that the triples name


@new_folder
def write_table_sample(out: Path, seed: int = 0) -> None:
    """`out`/train.parquet and test.parquet with the columns query and image; train and test share no picture."""
    with _shapes(seed) as pictures:
        for split in ("train", "test"):
            one = read_beir(pictures / split)
            first = {query: dict([next(iter(grades.items()))]) for query, grades in one.judged(split).items()}
            write_convention(replace(one, qrels={split: first}), "query-image", out)


@new_folder
def write_triples_sample(out: Path, seed: int = 0) -> None:
    """`out`/colmrl/shapes, a data set of pictures in parquet, and `out`/triples.jsonl, which names its rows."""
    from datasets import Image

    with _shapes(seed) as pictures:
        one = read_beir(pictures / "train")
        images = ({"image": {"bytes": encoded(document.images[0]), "path": None}} for document in one.documents)
        write_parquet(out / NAME / "train.parquet", images, {"image": Image()})
        rows = []
        for query, grades in one.judged("train").items():
            answers = [one.documents.position[name] for name in grades]
            family = range(answers[0] // 8 * 8, answers[0] // 8 * 8 + 8)  # eight pictures that are nearly the same
            named = [f"{NAME}/train/doc_{n}.png" for n in (answers[0], *(n for n in family if n not in answers))]
            rows.append({"query": one.queries.named(query).text, "pos": named[0], "negs": named[1:]})
    write_rows(out / "triples.jsonl", rows)


@contextmanager
def _shapes(seed: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield write_sample(Path(folder) / "shapes", seed, train_families=40, test_families=8)
