"""The sample pictures as tables: query and image in parquet, and triples that name a table's rows by hub-style ids."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from colmrl.data.beir import read_beir
from colmrl.data.convention_rows import write_convention
from colmrl.data.jsonl import write_rows
from colmrl.data.sample import write_sample
from colmrl.data.writing import encoded, write_parquet
from colmrl.files import check_new_folder

NAME = "colmrl/shapes"  # of the data set that the triples name


def write_table_sample(out: Path, seed: int = 0) -> None:
    """`out`/train.parquet and test.parquet with the columns query and image; train and test share no picture."""

    def write(pictures: Path, partial: Path) -> None:
        for split in ("train", "test"):
            one = read_beir(pictures / split)
            first = {query: dict([next(iter(grades.items()))]) for query, grades in one.judged(split).items()}
            write_convention(replace(one, qrels={split: first}), "query-image", partial)

    _write_from_shapes(out, seed, write)


def write_triples_sample(out: Path, seed: int = 0) -> None:
    """`out`/colmrl/shapes, a data set of pictures in parquet, and `out`/triples.jsonl, which names its rows."""

    def write(pictures: Path, partial: Path) -> None:
        from datasets import Image

        one = read_beir(pictures / "train")
        images = ({"image": {"bytes": encoded(document.images[0]), "path": None}} for document in one.documents)
        write_parquet(partial / NAME / "train.parquet", images, {"image": Image()})

        def named(position: int) -> str:
            return f"{NAME}/train/doc_{position}.png"

        rows = []
        for query, grades in one.judged("train").items():
            answers = [one.documents.position[name] for name in grades]
            family = range(answers[0] // 8 * 8, answers[0] // 8 * 8 + 8)  # eight pictures that are nearly the same
            negatives = [named(position) for position in family if position not in answers]
            rows.append({"query": one.queries.named(query).text, "pos": named(answers[0]), "negs": negatives})
        write_rows(partial / "triples.jsonl", rows)

    _write_from_shapes(out, seed, write)


def _write_from_shapes(out: Path, seed: int, write: Callable[[Path, Path], None]) -> None:
    check_new_folder(out)
    pictures, partial = out.with_name(out.name + ".shapes"), out.with_name(out.name + ".partial")
    for old in (pictures, partial):
        shutil.rmtree(old, ignore_errors=True)
    write_sample(pictures, seed, train_families=40, test_families=8)
    write(pictures, partial)
    shutil.rmtree(pictures)
    partial.rename(out)
