"""TREC run files, `query-id Q0 doc-id rank score tag` a line: what every tool of the field reads and writes."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from colmrl.errors import InputError
from colmrl.files import bounded_lines, write_whole


class RunLine(NamedTuple):
    """`number` counts from 1."""

    number: int
    query: str
    document: str
    score: float


def read_run(path: Path) -> Iterator[RunLine]:
    """Its lines as they stand; the rank is not believed. Blank lines are passed over."""
    if not path.is_file():
        raise InputError(f"{path}: no such file: give a TREC run file")
    with path.open("rb") as file:
        for number, line in bounded_lines(file, path):
            if not line.strip():
                continue
            try:
                query, _, document, _, score, _ = line.decode().split()
                value = float(score)
            except ValueError:
                said = repr(line.strip()[:80].decode(errors="replace"))
                raise InputError(
                    f"{path}:{number}: not `query-id Q0 doc-id rank score tag`: {said}: mend the line"
                ) from None
            if not math.isfinite(value):
                raise InputError(f"{path}:{number}: score: {score} is not finite: give a number, or leave the line out")
            yield RunLine(number, query, document, value)


def write_run(path: Path, ranked: Mapping[str, Iterable[tuple[str, float]]], tag: str) -> None:
    """Query → documents with their scores, the best first."""
    word = "-".join(tag.split()) or "run"

    def write(partial: Path) -> None:
        with partial.open("w", encoding="utf-8") as out:
            for query, found in ranked.items():
                for rank, (document, score) in enumerate(found, 1):
                    _check_ids(path, (query, document))
                    out.write(f"{query} Q0 {document} {rank} {score!r} {word}\n")

    write_whole(path, write)


def _check_ids(path: Path, ids: Sequence[str]) -> None:
    for name in ids:
        if name.split() != [name]:
            raise InputError(f"{path}: id {name!r}: a run file cannot hold ids with spaces: rename it in the data")
