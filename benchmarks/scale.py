"""How cost grows: each stage at 1×, 4× and 16× documents, its CPU seconds, memory, disk; and a million pages on paper.

    python benchmarks/run.py scale              # --quick: a hundredth of the documents, a few stages

Encoding and training read generated pictures of 64×64 with a tiny InternVL; indexing, mining, searching, judging read
generated stores (single@256 and multi@64, eight vectors a document; clustered, each query near its one answer). What
does not grow stays as it is: 2,000 queries to mine for, 500 to judge, 200 (multi, exactly: 20) asked one at a time, 12
training steps. Each stage is a process of its own with one thread. CPU seconds of the stage alone, without imports and,
for searches asked one at a time, a query. Memory beyond what the process held after importing: the highest that was
resident, mapped files included, and the highest that was its own (sampled every 5 ms; what the system can take back at
any time is left out). `exponent`: of the last quadrupling, 1 is linear; memory is flat where each document that the
last quadrupling adds takes no more than its id does, in the few lists and tables that find it.

The second table (scale_costs.py) puts what these runs measure to a million and a hundred million pages.

Writes benchmarks/results/scale.json.
"""

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import scale_costs
from scale_data import FOLDS, prepare_pictures, prepare_stores
from workers import resident

from colmrl import provenance

PICTURES, DOCUMENTS = 128, 5_000  # at 1×
STEPS = 12
ID_BYTES = 400  # of own memory a document
LINEAR = 1.1
STAGES = (
    "encode", "train, a step", "index flat single@256", "index ivf single@256", "index ivf multi@64", "mine single@256",
    "search single@256, exact", "search single@256, ivf", "search multi@64, exact", "search multi@64, ivf",
    "eval single@256", "eval multi@64",
)  # fmt: skip
MUST_BE_FLAT = ("encode", "mine", "eval")  # of the index and of exact search, the vectors are what is held


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--stages", nargs="*", default=STAGES, help=", ".join(STAGES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scale.json"))
    parser.add_argument("--measure", nargs=2, metavar=("STAGE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.measure:
        stage, folder = arguments.measure
        print(json.dumps(measure(stage, Path(folder))))
        return
    pictures, documents = (8, 100) if arguments.quick else (PICTURES, DOCUMENTS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if {"encode", "train, a step"} & {*arguments.stages}:
            prepare_pictures(folder, pictures)
        if {*arguments.stages} - {"encode", "train, a step"}:
            prepare_stores(folder, documents)
        rows = []
        for stage in arguments.stages:
            base = pictures if stage in ("encode", "train, a step") else documents
            found = [_apart(stage, folder / f"{fold}") | {"documents": base * fold} for fold in FOLDS]
            rows.append(row_of(stage, found))
            print(shown(rows[-1]), flush=True)
    paper = scale_costs.table(rows)
    print(scale_costs.markdown(paper))
    machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    content = {"command": provenance.command(), "commit": provenance.commit(), "machine": machine, "rows": rows}
    arguments.out.write_text(json.dumps(content | {"paper": paper}, indent=1) + "\n")


def row_of(stage: str, found: list[dict[str, float]]) -> dict[str, object]:
    """Costs by size, and how they grow from the second to the third."""
    _, before, last = found
    grown = (last["own_mib"] - before["own_mib"]) * 2**20 / (last["documents"] - before["documents"])
    row: dict[str, object] = {
        "case": stage,
        "tool": "colmrl",
        "sizes": found,
        "exponent": exponent(before, last, "cpu_s"),
        "own_memory_bytes_a_document": grown,
        "linear": exponent(before, last, "cpu_s") <= LINEAR,
    }
    if last["disk_bytes"]:
        row["disk_exponent"] = exponent(before, last, "disk_bytes")
    if stage.startswith(MUST_BE_FLAT):
        row["flat"] = grown <= ID_BYTES
    return row


def exponent(before: dict[str, float], last: dict[str, float], cost: str) -> float:
    ratio = last["documents"] / before["documents"]
    return math.log(max(last[cost], 1e-9) / max(before[cost], 1e-9)) / math.log(ratio)


def shown(row: dict[str, object]) -> str:
    sizes: list[dict[str, float]] = row["sizes"]  # pyright: ignore[reportAssignmentType]
    said = "  ".join(
        f"{s['documents']:>6,}: {s['cpu_s']:8.4f} s {s['own_mib']:5.0f}/{s['peak_mib']:.0f} MiB" for s in sizes
    )
    grows = f"^{row['exponent']:.2f}, {row['own_memory_bytes_a_document']:,.0f} B/document"
    return f"{row['case']:26} {said}  {grows}{'' if row.get('flat', True) else ' NOT FLAT'}"


def measure(stage: str, folder: Path) -> dict[str, float]:
    """CPU and wall seconds of one stage, its memory, and what it left on disk."""
    run, of, place, vector_bytes = prepare(stage, folder)
    before, own = resident("VmRSS"), resident("RssAnon")
    Path("/proc/self/clear_refs").write_text("5")
    sampler = Sampler()
    cpu, wall = time.process_time(), time.perf_counter()
    with sampler:
        run()
    spent = time.process_time() - cpu - sampler.cpu_s, time.perf_counter() - wall
    disk = sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) if place is not None else 0
    return {
        "cpu_s": spent[0] / of,
        "wall_s": spent[1] / of,
        "peak_mib": max(0, resident("VmHWM") - before) / 1024,
        "own_mib": max(0, sampler.most - own) / 1024,
        "disk_bytes": disk,
        "vector_bytes": vector_bytes,
    }


class Sampler:
    """The most anonymous memory that the process has had, looked at every 5 ms; the kernel keeps no such mark."""

    def __init__(self) -> None:
        self.most, self.cpu_s = 0, 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.most = max(self.most, resident("RssAnon"))
        self.most = max(self.most, resident("RssAnon"))
        self.cpu_s = time.thread_time()


def prepare(stage: str, folder: Path) -> tuple[Callable[[], object], int, Path | None, float]:
    """With everything imported: what to measure, how many units of it there are, where it writes, and how many bytes a
    document's vectors have in what it reads or writes.
    """
    import scale_stages

    return scale_stages.prepare(stage, folder)


def _apart(stage: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", stage, str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "1048576"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
