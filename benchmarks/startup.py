"""How long commands and imports take to begin, and how long wrong usage takes to be said, beside other libraries.

    python benchmarks/run.py startup            # --quick: once each, without peers

Every command in a process of its own, in interleaved rounds; medians of CPU and wall seconds, and the process's peak
memory. Nothing is warm but the files. Wrong usage is what a hurried person gives: a flag that is not there, a folder
that is not, a checkpoint that cannot go where it is asked to; each must end with code 2 and one line. Peers are
imported in their own environments; torchvision's two operations are described first, which its CUDA build cannot do
beside the CPU's torch.

Writes benchmarks/results/startup.json.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import peers

from colmrl import provenance

ROOT = Path(__file__).parent.parent
TARGET_S = 1.0  # of --help, and of what is wrong
_OPS = (
    "import torch; ops = torch.library.Library('torchvision', 'DEF'); "
    "[ops.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor') for name in ('nms', 'qnms')]; "
)
_PEER_IMPORTS = {
    "sentence-transformers": "import sentence_transformers",
    "colpali-engine": "from colpali_engine.models import ColQwen2",
    "pylate": "from pylate import models",
}


@dataclass(frozen=True)
class Start:
    """A command; `code`: that it must end with. `reference`: that the others of its case are compared with."""

    case: str
    tool: str
    version: str
    said: str
    command: tuple[str, ...]
    code: int = 0
    reference: bool = False


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/startup.json"))
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        starts = own(Path(temporary))
        if not arguments.quick:
            starts += others()
        measured: dict[Start, list[tuple[float, float, float]]] = {start: [] for start in starts}
        for _ in range(1 if arguments.quick else arguments.rounds):
            for start in starts:
                measured[start].append(run(start))
    rows = table(measured)
    for row in rows:
        print(f"{row['case']:12} {row['tool']:22} {row['median_s']:6.2f} s CPU {row['wall_s']:6.2f} s  {row['said']}")
    machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    content = {"command": provenance.command(), "commit": provenance.commit(), "machine": machine, "rows": rows}
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")


def own(folder: Path) -> list[Start]:
    version = metadata.version("colmrl")

    def start(case: str, said: str, *command: str, code: int = 0, reference: bool = False) -> Start:
        return Start(case, "colmrl", version, said, (sys.executable, *command), code, reference)

    def wrong(said: str, *command: str, reference: bool = False) -> Start:
        return start("wrong usage", said, *command, code=2, reference=reference)

    refused, out = str(checkpoint(folder)), str(folder / "exported")
    nowhere, colmrl = str(folder / "nowhere"), ("-m", "colmrl")
    export = (*colmrl, "export", refused, "--out", out, "--to")
    return [
        start("help", "colmrl --help", *colmrl, "--help", reference=True),
        start("help", "colmrl encode --help", *colmrl, "encode", "--help"),
        start("help", "train.py --help", "train.py", "--help"),
        start("import", "import colmrl", "-c", "import colmrl"),
        start("import", "from colmrl.api import Retriever", "-c", "from colmrl.api import Retriever", reference=True),
        wrong("encode --bogus", *colmrl, "encode", "--bogus"),
        wrong("train.py --config demo train.epoch=2", "train.py", "--config", "demo", "train.epoch=2"),
        wrong("train.py --data NOWHERE", "train.py", "--config", "demo", "--data", nowhere),
        wrong("encode --checkpoint NOWHERE", *colmrl, "encode", "--checkpoint", nowhere, "--data", nowhere),
        wrong("encode --data NOWHERE", *colmrl, "encode", "--checkpoint", refused, "--data", nowhere),
        wrong("index --store NOWHERE", *colmrl, "index", "--store", nowhere, "--view", "single@64"),
        wrong("search --store NOWHERE", *colmrl, "search", "--store", nowhere, "--query", "a circle"),
        wrong("mine.py --store NOWHERE", "mine.py", "--store", nowhere),
        wrong("eval.py --store NOWHERE", "eval.py", "--store", nowhere),
        wrong("export CHECKPOINT --to bogus", *export, "bogus"),
        wrong("export, a model that sees, --to pylate", *export, "pylate", reference=True),
        wrong("export, InternVL, --to colpali-engine", *export, "colpali-engine"),
        wrong("export, a model that sees, --to onnx", *export, "onnx"),
    ]


def checkpoint(folder: Path) -> Path:
    """Of an untrained tiny InternVL."""
    from colmrl.configure import load_config
    from colmrl.models.retriever import Retriever
    from colmrl.models.tiny import write_tiny_model

    base = write_tiny_model("internvl", folder / "tiny")
    Retriever.create(load_config(None, [f"model.backbone={base}"])).save(folder / "checkpoint")
    return folder / "checkpoint"


def others() -> list[Start]:
    torch = metadata.version("torch")
    found = [Start("import", "torch", torch, "import torch", (sys.executable, "-c", "import torch"))]
    for tool, code in _PEER_IMPORTS.items():
        python = peers.python(tool)
        command = (str(python), "-c", code if tool == "pylate" else _OPS + code)
        found.append(Start("import", tool, version_in(python, tool), code, command))
    python = peers.python("sentence-transformers")
    transformers, program = version_in(python, "transformers"), str(python.parent / "transformers")
    found += [
        Start("help", "transformers", transformers, "transformers --help", (program, "--help")),
        Start("wrong usage", "transformers", transformers, "transformers --bogus", (program, "--bogus"), 2),
    ]
    mteb = (sys.executable, "-m", "mteb")
    found += [
        Start("help", "mteb", metadata.version("mteb"), "mteb --help", (*mteb, "--help")),
        Start("wrong usage", "mteb", metadata.version("mteb"), "mteb run --bogus", (*mteb, "run", "--bogus"), 2),
    ]
    return found


def version_in(python: Path, tool: str) -> str:
    code = f"from importlib.metadata import version; print(version('{tool}'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def run(start: Start) -> tuple[float, float, float]:
    """CPU and wall seconds and MiB of one run, which must end as it should."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as said:
        begun = time.perf_counter()
        process = subprocess.Popen(start.command, cwd=ROOT, stdout=said, stderr=said, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
    if process.returncode != start.code:
        raise SystemExit(f"{start.tool}: {start.said}: ended with {process.returncode}: {' '.join(lines[-3:])}")
    if start.tool == "colmrl" and start.code:
        assert any("rror: " in line for line in lines) and not any(line.startswith("Traceback") for line in lines)
    return usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024


def table(measured: dict[Start, list[tuple[float, float, float]]]) -> list[dict[str, object]]:
    rows = []
    medians = {start: [statistics.median(column) for column in zip(*of, strict=True)] for start, of in measured.items()}
    ours = {start.case: cpu for start, (cpu, _, _) in medians.items() if start.reference}
    for start, (cpu, wall, peak) in sorted(medians.items(), key=lambda item: item[0].case):
        row = {"case": start.case, "tool": start.tool, "version": start.version, "said": start.said}
        row |= {"median_s": cpu, "wall_s": wall, "time": "CPU", "peak_mib": peak, "ratio": cpu / ours[start.case]}
        if start.tool == "colmrl" and start.case != "import":
            row |= {"target": TARGET_S, "reached": wall <= TARGET_S}
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
