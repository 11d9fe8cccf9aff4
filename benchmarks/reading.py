"""Is reading ever the bottleneck? Pages through the loader, against what a tiny model consumes; memory at 1× and 10×.

    python benchmarks/reading.py --pages ../shared/data/pages_lilypond

Speed: pages a second that the training loader delivers (2 workers, nothing else running), against the queries and
pages a second that a training step of the same tiny model consumes (one thread, batches in memory). Medians of five,
taken in turn. Memory: the anonymous memory (Pss_Anon: what cannot be given back by dropping a page cache, shared pages
counted once) that main process and workers have in all, at its peak, while every page is read once: 2,000 and 20,000
documents, as a BEIR folder and as parquet with the pictures in it. There are 373 pages, so each stands several times,
under other ids; in parquet with other bytes, so that they are not taken for one document.

Writes benchmarks/results/reading.json and prints the tables that docs/reading.md shows.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from colmrl import provenance
from colmrl.config import DataConfig

FAMILIES = ("internvl", "qwen2_5_vl", "qwen3_vl")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path, default=Path("../shared/data/pages_lilypond"))
    parser.add_argument("--work", type=Path, default=Path("outputs/reading"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/reading.json"))
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "WHERE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.measure:
        what, where = arguments.measure
        print(json.dumps(speed(what, arguments.pages, where) if what in FAMILIES else memory(where)))
        return
    rows = []
    for family in FAMILIES:
        rows += _apart(family, str(arguments.work), arguments.pages)
    for kind in ("beir", "parquet"):
        peaks = []
        for count in (2_000, 20_000):
            folder = arguments.work / f"{kind}-{count}"
            write_pages(arguments.pages, folder, count, kind)
            peaks += _apart("memory", str(folder), arguments.pages)
            peaks[-1] |= {"case": f"{kind}, {count} documents"}
        rows += [row | {"ratio": row["peak_mb"] / peaks[0]["peak_mb"]} for row in peaks]
    machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    content = {"command": provenance.command(), "commit": provenance.commit(), "machine": machine, "rows": rows}
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")
    for row in rows:
        print({key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()})


def _apart(what: str, where: str, pages: Path) -> list[dict]:
    """One measurement in a process of its own, so that nothing is left over from the one before."""
    command = [sys.executable, __file__, "--pages", str(pages), "--measure", what, where]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = json.loads(out.splitlines()[-1])
    return found if isinstance(found, list) else [found]


def loader(config, count: int, batch_size: int = 16) -> Iterator:
    """The batches that training would see, of `count` examples."""
    from torch.utils.data import DataLoader, Subset

    from colmrl.data.reading import read_training
    from colmrl.models.inputs import InputBuilder
    from colmrl.models.processors import load_processor
    from colmrl.training.batches import Collator, ExampleDataset

    examples, positives = read_training(config.data)
    processor = load_processor(config.model.backbone, config.model.max_pixels, config.model.padding_side)
    dataset = Subset(ExampleDataset(examples, 0, 0), [n % len(examples) for n in range(count)])
    collator = Collator(InputBuilder(processor, config.model), positives)
    yield from DataLoader(dataset, batch_size, collate_fn=collator, num_workers=2)


def speed(family: str, pages: Path, work: str) -> list[dict]:
    import torch

    from colmrl.configure import load_config
    from colmrl.inputs import write_inputs
    from colmrl.models.retriever import Retriever
    from colmrl.training.objective import Objective
    from colmrl.training.pool import make_pool

    torch.set_num_threads(1)
    overrides = [f"output={work}/{family}", f"data.path={pages}", "data.train_split=test"]
    config = write_inputs(load_config("pages", [*overrides, f"model.backbone=tiny:{family}"]))
    model = Retriever.create(config)
    objective, optimizer = Objective(config), torch.optim.AdamW(model.parameters(), 1e-4)
    held = list(loader(config, 256))
    read, consumed = [], []
    for _ in range(5):
        start = time.perf_counter()
        batches = sum(1 for _ in loader(config, 2_000))
        assert batches == 125
        read.append(time.perf_counter() - start)
        start = time.perf_counter()
        for batch in held:
            losses = objective(make_pool(model(*batch["chunks"]), batch, config.multi.budgets))
            objective.total(losses, []).backward()
            optimizer.step()
            optimizer.zero_grad()
        consumed.append((time.perf_counter() - start) / 256 * 2_000)
    reading, training = statistics.median(read), statistics.median(consumed)
    return [
        {"case": "2,000 pages, 2 workers", "tool": f"loader of {family}", "median_s": reading, "ratio": 1.0},
        {
            "case": "2,000 pages, 1 thread",
            "tool": f"training step of tiny {family}",
            "median_s": training,
            "ratio": training / reading,
        },
    ]


def memory(folder: str) -> dict:
    from colmrl.configure import load_config
    from colmrl.data.reading import read_collection
    from colmrl.inputs import write_inputs

    config = write_inputs(load_config("pages", [f"output={folder}-run", f"data.path={folder}"]))
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], _anonymous_kb())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    count = len(read_collection(config.data.path, DataConfig()).documents)
    opened = time.perf_counter() - start
    batches = sum(1 for _ in loader(config, count))
    done.set()
    watcher.join()
    assert batches == -(-count // 16)
    return {"tool": "loader, 2 workers", "peak_mb": peak[0] / 1000, "open_s": opened}


def _anonymous_kb() -> int:
    """Pss_Anon of this process and its children: a page that they share counts once in all."""
    own = str(os.getpid())
    children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
    total = 0
    for process in (own, *children):
        try:
            status = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:  # it has just ended
            continue
        total += next((int(line.split()[1]) for line in status.splitlines() if line.startswith("Pss_Anon")), 0)
    return total


def write_pages(pages: Path, folder: Path, count: int, kind: str) -> None:
    """`count` documents of the pages, one query each; what is there already is kept."""
    from datasets import Image, Value

    from colmrl.data.beir import read_corpus
    from colmrl.data.jsonl import write_rows
    from colmrl.data.writing import write_parquet

    if folder.exists():
        return
    folder.mkdir(parents=True)
    documents = read_corpus(pages)
    shown = [(n, documents[n % len(documents)]) for n in range(len(documents))]
    if kind == "parquet":
        held = {n: Path(document.images[0]).read_bytes() for n, document in shown}
        rows = (
            {"query": f"page {n}", "image": {"bytes": held[n % len(held)] + str(n).encode(), "path": None}}
            for n in range(count)
        )
        write_parquet(folder / "train.parquet", rows, {"query": Value("string"), "image": Image()})
        return
    texts = [(document.text, document.images[0]) for _, document in shown]
    write_rows(
        folder / "corpus.jsonl",
        ({"_id": f"d{n}", "text": texts[n % len(texts)][0], "image": texts[n % len(texts)][1]} for n in range(count)),
    )
    write_rows(folder / "queries.jsonl", ({"_id": f"q{n}", "text": f"page {n}"} for n in range(count)))
    (folder / "qrels").mkdir()
    lines = "".join(f"q{n}\td{n}\t1\n" for n in range(count))
    (folder / "qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines)


if __name__ == "__main__":
    main()
