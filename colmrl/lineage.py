"""What a run made of what: each round's checkpoint, store, index, triples and results, by content.

    round-2/manifest.json    {"round": 2, "links": [{"what": "checkpoint", "path": …, "hash": …, "of": [hashes]}, …]}

A hash is of what a thing holds, wherever it stands: of a checkpoint its fingerprint, of a store its stamp, of a file
its SHA-256.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from colmrl.errors import InputError
from colmrl.files import digest, write_text
from colmrl.models.retriever import fingerprint
from colmrl.search.index_files import VECTORS, read_facts
from colmrl.store import StoreWriter, read_manifest

What = Literal["checkpoint", "store", "mining-store", "index", "triples", "results"]


@dataclass(frozen=True)
class Link:
    """One thing of a round; `path` is relative to the run, `of` the hashes of what it was made from."""

    what: What
    path: str
    hash: str
    of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Round:
    round: int
    links: tuple[Link, ...]

    def hash_of(self, what: What) -> str | None:
        return next((link.hash for link in self.links if link.what == what), None)


_ROUND = TypeAdapter(Round)


def write_round(run: Path, number: int, trained_on: Sequence[str]) -> None:
    """Write down what stands in a round's folder. `trained_on`: hashes of what its checkpoint was made from."""
    folder = run / f"round-{number}"
    links = []
    made: dict[What, str] = {}

    def add(what: What, path: Path, of: Sequence[str | None]) -> None:
        if path.exists():
            made[what] = hash_of(what, path)
            links.append(Link(what, str(path.relative_to(run)), made[what], tuple(filter(None, of))))

    add("checkpoint", folder / "checkpoint", trained_on)
    add("store", folder / "store", [made["checkpoint"]])
    add("mining-store", folder / "mining-store", [made["checkpoint"]])
    mined = made.get("mining-store", made["store"])
    for index in sorted((folder / "indexes").glob("*/manifest.json")):
        add("index", index.parent, [mined])
    add("triples", folder / "triples.jsonl", [mined, made.get("index")])
    add("results", folder / "results.json", [made["store"]])
    write_text(folder / "manifest.json", json.dumps(asdict(Round(number, tuple(links))), indent=1))


def read_rounds(run: Path) -> list[Round]:
    """All that were written down, in order; an InputError where there is none."""
    paths = sorted(run.glob("round-*/manifest.json"), key=lambda path: int(path.parent.name.partition("-")[2]))
    if not paths:
        raise InputError(f"{run}: no round-*/manifest.json: give the --output of a colmrl loop")
    rounds = []
    for path in paths:
        try:
            rounds.append(_ROUND.validate_json(path.read_bytes()))
        except ValueError as error:
            raise InputError(f"{path}: cannot be read: {' '.join(str(error).split())}: run the loop again") from None
    return rounds


def checked(run: Path, rounds: Sequence[Round]) -> Iterator[tuple[int, Link, str]]:
    """Round, link, and what became of it: "" where it still is what it was, and all that it was made from is known."""
    known = {link.hash for each in rounds for link in each.links}
    for each in rounds:
        for link in each.links:
            path = run / link.path
            try:
                now = hash_of(link.what, path) if path.exists() else None
                damaged = _damaged(link.what, path) if now == link.hash else None
            except InputError:
                now, damaged = "unreadable", None
            absent = [source for source in link.of if source not in known and link.what != "checkpoint"]
            if now is None:
                yield each.round, link, "gone"
            elif now != link.hash:
                yield each.round, link, f"changed: now {now[:12]}"
            elif damaged:
                yield each.round, link, f"damaged: {damaged}"
            else:
                yield each.round, link, f"made from {absent[0][:12]}, which is not here" if absent else ""


def _damaged(what: What, path: Path) -> str | None:
    """A file that is not what its manifest says, of what is known by its manifest; every byte is read."""
    match what:
        case "store" | "mining-store":
            for kind in ("documents", "queries"):
                if files := StoreWriter(path / kind).damaged():
                    return f"{kind}/{files[0]}"
            return None
        case "index":
            return None if digest(path / VECTORS) == read_facts(path)[0].hash else VECTORS
        case _:
            return None


def hash_of(what: What, path: Path) -> str:
    """Of what it holds."""
    match what:
        case "checkpoint":
            return fingerprint(path)
        case "store" | "mining-store":
            stamps = [read_manifest(path / kind).stamp for kind in ("documents", "queries")]
            return hashlib.sha256("".join(stamps).encode()).hexdigest()[:32]
        case "index":
            return read_facts(path)[0].hash
        case "triples" | "results":
            return digest(path, "sha256")
