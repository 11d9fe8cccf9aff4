"""Encoding documents on one CPU thread beside the libraries that do it: the same weights and files, equal vectors.

    python benchmarks/run.py encode             # --quick: few documents, one round; --only CASE …

Small random models whose pictures are cut as those of the real ones are (encode_inputs.py), pages of mixed shapes and
sizes, and MiniLM's real weights on SciFact's documents (where ../shared has them). Everything counts: opening files,
preparing pictures, tokens, forward, vectors to numpy. Ours twice: `embed`, from records in memory to vectors in
memory, and `store`, the whole of encode.py but loading the model: data folder → a finished store on disk. Where a case
names a head, peers give that one, ours both. Peers get the same batch size; their pictures are prepared by
transformers' torchvision backend, of which ours has the pixels, and once more by its PIL backend, which is beside ours
with `model.resize: pil`. On a CPU ours makes smaller batches of long documents by itself; "one at a time" gives a peer
that advantage too.

Every tool runs in a process of its own, peers in environments of their own (peers.py); rounds go through all tools in
turn and CPU seconds are medians over rounds. "preparing_s": of these, what makes model inputs of files. Ratio: a tool's
CPU seconds to those of our `embed`, of the same pixels. max_difference: of any number in any vector, to ours.

Writes benchmarks/results/encode.json and prints the table.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import peers
from encode_inputs import SHARED, write_checkpoint, write_model, write_pages, write_scifact, write_texts
from workers import ask, table, working

from colmrl import provenance

EQUAL = 1e-4
BASE = "colmrl: embed"
PIL = "colmrl: embed, PIL"
OURS = (BASE, "colmrl: store")
ST = "sentence-transformers"
SEEING = (f"{ST}: PIL", f"{ST}: torchvision")
ALONE = f"{ST}: torchvision, one at a time"
COLPALI = ("colpali-engine: PIL", "colpali-engine: torchvision")


@dataclass(frozen=True)
class Case:
    """`family`: of a random model, or "minilm"."""

    family: str
    head: Literal["single", "multi"]
    peers: tuple[str, ...]
    write: Callable[[Path, int], None]
    documents: int
    quick: int
    batch_size: int

    @property
    def sees(self) -> bool:
        return self.write is write_pages


CASES = {
    "pages, Qwen2.5-VL": Case("qwen2_5_vl", "multi", (*SEEING, ALONE, *COLPALI), write_pages, 36, 4, 8),
    "pages, Qwen3-VL": Case("qwen3_vl", "multi", SEEING, write_pages, 12, 2, 8),
    "pages, InternVL": Case("internvl", "single", SEEING, write_pages, 36, 2, 8),
    "SciFact, MiniLM": Case("minilm", "single", (ST,), write_scifact, 200, 8, 8),
    "texts, Qwen3": Case("qwen3", "multi", (ST,), write_texts, 400, 8, 32),
}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--documents", type=int, help="a case, instead of each one's own number")
    parser.add_argument("--only", nargs="*", choices=[*CASES], default=[*CASES], metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--tools", nargs="*", help="beside our embed; none: all")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/encode.json"))
    options = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as work:
        for name in options.only:
            case, folder = CASES[name], Path(work) / name
            if case.family == "minilm" and not SHARED.is_dir():
                skipped[name] = f"{SHARED} is not there"
                continue
            ours = (*OURS, PIL) if case.sees else OURS
            tools = [t for t in (*ours, *case.peers) if options.tools is None or t in (BASE, *options.tools)]
            prepare(folder, case, case.quick if options.quick else options.documents or case.documents)
            found, versions = measure(folder, tools, 1 if options.quick else options.rounds, name, skipped)
            rows += [row(name, folder, tool, found, versions) for tool in found]
    names = ("case", "tool", "version", "documents_per_cpu_s", "median_s", "ratio", "preparing_s", "peak_mib")
    print(table(rows, (*names, "max_difference", "equal")))
    for name, reason in skipped.items():
        print(f"skipped: {name}: {reason}")
    machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    content = {"command": provenance.command(), "commit": provenance.commit(), "machine": machine, "rows": rows}
    options.out.write_text(json.dumps(content | {"skipped": skipped}, indent=1) + "\n")


def prepare(folder: Path, case: Case, count: int) -> None:
    folder.mkdir()
    case.write(folder / "data", count)
    libraries = tuple({tool.partition(":")[0]: None for tool in case.peers})
    if case.family == "minilm":
        limits = ["model.max_query_tokens=256", "model.max_document_tokens=256"]
        heads = ["single.dims=[384]", "multi.dims=[]"]
        write_checkpoint(folder, str(SHARED / "models/all-MiniLM-L6-v2"), libraries, *heads, *limits)
    else:
        written = write_checkpoint(folder, str(write_model(case.family, folder / "backbone")), libraries)
        if case.sees:
            copy = shutil.copytree(written, folder / "checkpoint, PIL") / "colmrl.json"
            content = json.loads(copy.read_text())
            content["model"]["resize"] = "pil"
            copy.write_text(json.dumps(content))
    asked = {"batch_size": case.batch_size, "head": case.head, "sees": case.sees}
    (folder / "asked.json").write_text(json.dumps(asked))


def measure(
    folder: Path, tools: list[str], rounds: int, name: str, skipped: dict[str, str]
) -> tuple[dict[str, list[dict[str, float]]], dict[str, str]]:
    """What each round took each tool, the first, which warms up, left out; and versions."""
    found: dict[str, list[dict[str, float]]] = {}
    versions, workers = {}, {}
    with ExitStack() as stack:
        for tool in tools:
            library, log = tool.partition(":")[0], folder / f"{tool}.log"
            try:
                program = peers.python(library) if library in peers.PEERS else Path(sys.executable)
                script = Path(__file__).with_name("encode_tools.py")
                worker = stack.enter_context(working([program, script, tool, folder], log))
                versions[tool] = ask(worker, log)["version"]
                ask(worker, log, "warm up")
            except (peers.Unavailable, EOFError) as error:
                skipped[f"{name}, {tool}"] = str(error)
                continue
            workers[tool], found[tool] = (worker, log), []
        for number in range(rounds):
            print(f"{name}, round {number + 1} of {rounds}", flush=True)
            for tool, asked in workers.items():
                found[tool].append(ask(*asked, "run"))
    return found, versions


def row(
    case: str, folder: Path, tool: str, found: dict[str, list[dict[str, float]]], versions: dict[str, str]
) -> dict[str, Any]:
    median = {name: statistics.median(one[name] for one in found[tool]) for name in found[tool][0]}
    base = PIL if PIL in found and tool.endswith(": PIL") else BASE
    ours, theirs = (np.load(folder / f"{name}.npz") for name in (base, tool))
    said: dict[str, Any] = {"case": case, "tool": tool, "version": versions[tool], "documents": len(ours["lengths"])}
    said |= {"documents_per_cpu_s": len(ours["lengths"]) / median["cpu_s"], "median_s": median["cpu_s"]}
    said["ratio"] = median["cpu_s"] / statistics.median(one["cpu_s"] for one in found[base])
    said |= {name: median[name] for name in ("preparing_s", "wall_s", "peak_mib")}
    if tool == BASE:
        return said
    same = np.array_equal(ours["lengths"], theirs["lengths"])
    difference = float(np.abs(ours["vectors"] - theirs["vectors"]).max()) if same else float("inf")
    return said | {"max_difference": difference, "equal": difference <= EQUAL}


if __name__ == "__main__":
    main(sys.argv[1:])
