"""kill -9 at random moments: encode, index and mine by their commands, run again, must leave the same bytes.

    python benchmarks/run.py kills              # --times 10

A tiny InternVL and 1,200 pictures; each command is run once to its end, then `times` times killed after a random share
of that time (by the clock, starting of Python included) and run again, into the same place, until a run ends by itself.
What it leaves is compared with the first byte by byte, without the times that an index measured. Leave the working tree
as it is meanwhile: manifests name its commit.

Writes benchmarks/results/kills.json: for each command how often it was killed, and how many results were equal.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from colmrl import provenance

ROOT = Path(__file__).parents[1]
_MEASURED = ("measured.json",)  # seconds, which no two runs share


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--cases", default="encode,index,mine")
    parser.add_argument("--families", type=int, default=150, help="of eight pictures each")
    parser.add_argument("--work", type=Path, default=Path("outputs/kills"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kills.json"))
    arguments = parser.parse_args(argv)
    work = arguments.work.resolve()
    shutil.rmtree(work, ignore_errors=True)
    checkpoint, data, store = prepare(work, arguments.families), work / "data" / "train", work / "store"
    script = [sys.executable, ROOT / "mine.py", "--store", store, "--k", "20", "mine.view=multi@128", "mine.filters=[]"]
    index = [sys.executable, "-m", "colmrl", "index", "--store", store]
    cases = {
        "encode": (
            store,
            [sys.executable, ROOT / "encode.py", "--checkpoint", checkpoint, "--data", data, "--out", store],
        ),
        "index": (
            work / "indexes",
            [*index, "--view", "multi@64,single@64", "--type", "ivf", "--out", work / "indexes"],
        ),
        "mine": (work / "mined", [*script, "--out", work / "mined/triples.jsonl"]),
    }
    draw, rows = random.Random(0), []
    for case, (place, command) in cases.items():
        if case not in arguments.cases.split(","):
            run(command)
            continue
        rows.append({"case": case, "tool": "colmrl", **killed(place, command, arguments.times, draw)})
        print(rows[-1], flush=True)
    machine = f"{os.cpu_count()} cores"
    content = {"command": provenance.command(), "commit": provenance.commit(), "machine": machine, "rows": rows}
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")


def prepare(work: Path, families: int) -> Path:
    """Pictures, and a checkpoint of a tiny model as it is drawn."""
    from colmrl.configure import load_config
    from colmrl.data.sample import write_sample
    from colmrl.training.run import train

    write_sample(work / "data", 0, train_families=families, test_families=1)
    options = ["model.backbone=tiny:internvl", f"data.path={work / 'data/train'}", "train.max_steps=0", "threads=1"]
    return train(load_config(None, [*options, f"output={work / 'run'}"])).resolve()


def killed(place: Path, command: list[object], times: int, draw: random.Random) -> dict[str, object]:
    started = time.perf_counter()
    run(command)
    seconds = time.perf_counter() - started
    whole, kills, equal = contents(place), 0, 0
    for _ in range(times):
        shutil.rmtree(place)
        while run(command, draw.uniform(0, seconds)):
            kills += 1
        equal += contents(place) == whole
    return {"seconds": round(seconds, 1), "files": len(whole), "kills": kills, "rounds": times, "equal": equal}


def run(command: list[object], kill_after_s: float | None = None) -> bool:
    """Whether it was killed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            list(map(str, command)), env=environment, capture_output=True, text=True, timeout=kill_after_s
        )
    except subprocess.TimeoutExpired:  # after SIGKILL
        return True
    if done.returncode and "exists already" not in done.stderr:  # killed after its last file was in its place
        raise SystemExit(done.stderr)
    return False


def contents(place: Path) -> dict[str, bytes]:
    files = (path for path in sorted(place.rglob("*")) if path.is_file() and path.name not in _MEASURED)
    return {str(path.relative_to(place)): path.read_bytes() for path in files}


if __name__ == "__main__":
    main()
