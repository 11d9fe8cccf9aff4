"""One tool a process, for benchmarks that ask tools in turn: a line of text asks, a line of JSON answers."""

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def working(command: list[str | Path], log: Path, threads: int = 1) -> Iterator[subprocess.Popen]:
    """A process that answers on its standard output; what it says on its errors is kept in `log`."""
    numbers = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
    environment = os.environ | numbers | {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with log.open("w") as errors, subprocess.Popen([str(part) for part in command], stderr=errors, **pipes) as worker:
        try:
            yield worker
        finally:
            worker.stdin.close()


def ask(worker: subprocess.Popen, log: Path, question: str | None = None) -> dict[str, Any]:
    """Its answer; of a process that ended, what it said last is raised as EOFError. None: what it says first."""
    if question is not None:
        worker.stdin.write(question + "\n")
        worker.stdin.flush()
    while line := worker.stdout.readline():
        if line.startswith("{"):  # libraries print
            return json.loads(line)
    worker.wait()
    raise EOFError((log.read_text().strip().splitlines() or ["stopped without a message"])[-1])


def answering(first: dict[str, Any], answers: Callable[[str], dict[str, Any]]) -> None:
    """In the process: say that it is ready, and answer each line."""
    print(json.dumps(first), flush=True)
    for line in sys.stdin:
        print(json.dumps(answers(line.strip())), flush=True)


def measured(run: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What it gives, and CPU and wall seconds and the most memory beyond what the process held before."""
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is forgotten
    cpu, wall = time.process_time(), time.perf_counter()
    made = run()
    seconds = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    return made, seconds | {"peak_mib": (resident("VmHWM") - before) / 1024}


def trimmed() -> None:
    """Memory that the allocator holds and nothing uses goes back, so that each run's peak is its own."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Markdown."""
    cells = [list(names), ["---"] * len(names)]
    for row in rows:
        values = [row.get(name, "") for name in names]
        cells.append([f"{value:.3g}" if isinstance(value, float) else str(value) for value in values])
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def resident(field: str) -> int:
    """kB, of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
