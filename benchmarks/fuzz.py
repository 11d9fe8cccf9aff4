"""Any bytes into every reader: a result, or an InputError; never another error, a crash, a hang or a memory blow-up.

    python benchmarks/run.py fuzz --seconds 300

Each reader (benchmarks/fuzz_readers.py) has its share of the time in a process of its own, forked: inputs begin as
small whole files, and are changed byte by byte and, where they are JSON, value by value. With atheris installed
(pip install atheris) libFuzzer chooses what to change further by the lines of colmrl that were reached.

Writes benchmarks/results/fuzz.json: for each reader inputs tried, how many were read and refused, what else was raised
and where (the first input that did, under --work), the slowest input, and the memory that the process grew by.
"""

import argparse
import contextlib
import json
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SLOW_S, GROWN_MB = 5, 1024  # more than that is a failure
MOST_BYTES = 1 << 14
TOKENS = (b"null", b"true", b"-1", b"1e999", b"NaN", b"[" * 2000, b"{", b"}", b'"', b"\\ud800", b"\xff", b"\0", b"\n")
TOKENS += (b"../../x", b"\xef\xbb\xbf", b"\r", b"\t", b"9" * 400, b"1" * 5000, b"", b"a.png", b"&a *a")
TOKENS += (b"!!python/name:os",)
VALUES: tuple[Any, ...] = (None, True, -1, 0, 10**400, 1e308, float("nan"), "", "../x", "a" * 300)
VALUES += ([], {}, [[]], [None], "\0")


def changed(content: bytes, draw: random.Random) -> bytes:
    """Another input: some bytes other, or one value of JSON."""
    if draw.random() < 0.5:
        with contextlib.suppress(ValueError, RecursionError):
            rows = [json.loads(line) for line in content.splitlines() if line.strip()] if content[:1] in b"{[" else []
            if rows:
                place = draw.randrange(len(rows))
                rows[place] = _value_changed(rows[place], draw)
                return b"\n".join(json.dumps(row).encode() for row in rows) + b"\n"
    for _ in range(draw.choice((1, 1, 2, 4))):
        at, end = sorted((draw.randrange(len(content) + 1), draw.randrange(len(content) + 1)))
        match draw.randrange(6):
            case 0:
                content = content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :]
            case 1:
                content = content[:at] + draw.choice(TOKENS) + content[at:]
            case 2:
                content = content[:at] + content[min(end, at + 8) :]
            case 3:
                content = content[:end] + content[at:]
            case 4:
                content = content[:at]
            case _:
                content = content[:at] + draw.choice(TOKENS) + content[end:]
    return content[:MOST_BYTES]


def _value_changed(value: Any, draw: random.Random) -> Any:
    if isinstance(value, dict) and value and draw.random() < 0.8:
        key = draw.choice(list(value))
        if draw.random() < 0.15:
            return {name: held for name, held in value.items() if name != key}
        return {**value, key: _value_changed(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.7:
        at = draw.randrange(len(value))
        return [*value[:at], _value_changed(value[at], draw), *value[at + 1 :]]
    return draw.choice(VALUES)


class Trial:
    """Feeds one reader and counts. `place`: a folder of its own; `keep`: where inputs that fail go."""

    def __init__(self, name: str, place: Path, keep: Path):
        from fuzz_readers import READERS, seeds_of

        self.name, self.reader, self.keep = name, READERS[name], keep
        self.folder = place / name.replace(" ", "-")
        self.folder.mkdir(parents=True)
        self.reader.prepare(self.folder)
        self.path = self.folder / self.reader.file
        self.path.parent.mkdir(exist_ok=True)
        self.seeds = seeds_of(name, self.folder)
        self.counts = {"inputs": 0, "read": 0, "refused": 0}
        self.failures: dict[str, str] = {}
        self.slowest_s, self.memory_mb = 0.0, _memory_mb()

    def feed(self, content: bytes) -> None:
        from colmrl.errors import InputError

        self.path.write_bytes(content)
        self.counts["inputs"] += 1
        started = time.process_time()
        try:
            self.reader.read(self.path)
            self.counts["read"] += 1
        except InputError:
            self.counts["refused"] += 1
        except Exception as error:
            self.fail(_place_of(error), content)
        seconds = time.process_time() - started
        self.slowest_s = max(self.slowest_s, seconds)
        if seconds > SLOW_S:
            self.fail(f"slow: more than {SLOW_S} s", content)

    def fail(self, what: str, content: bytes) -> None:
        if what not in self.failures:
            self.keep.mkdir(parents=True, exist_ok=True)
            kept = self.keep / f"{self.name.replace(' ', '-')}-{len(self.failures)}"
            kept.write_bytes(content)
            self.failures[what] = str(kept)

    def row(self) -> dict[str, Any]:
        grown = max(0.0, _memory_mb() - self.memory_mb)
        if grown > GROWN_MB:
            self.failures[f"memory: grew by {grown:.0f} MB"] = ""
        numbers = {"slowest_s": round(self.slowest_s, 3), "grown_mb": round(grown)}
        return {"reader": self.name, **self.counts, "failures": self.failures, **numbers}


def _place_of(error: Exception) -> str:
    """What was raised, and the last line of ours on the way to it."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "/colmrl/" in frame.filename]
    last = ours[-1] if ours else None
    return f"{type(error).__name__} at {last.filename.rpartition('/colmrl/')[2]}:{last.lineno}" if last else repr(error)


def _memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def mutated(trial: Trial, until: float, draw: random.Random, most: int = 1 << 62) -> None:
    """Inputs drawn from the seeds, and from those that were read."""
    pool = list(trial.seeds)
    for content in pool:
        trial.feed(content)
    while time.monotonic() < until and trial.counts["inputs"] < most:
        content = changed(draw.choice(pool), draw)
        read = trial.counts["read"]
        trial.feed(content)
        if trial.counts["read"] > read and len(pool) < 500:
            pool.append(content)


def guided(trial: Trial, until: float, draw: random.Random, finish: Any) -> None:
    """libFuzzer's inputs; calls `finish` when the time is over, since it does not come back."""
    import atheris  # pyright: ignore[reportMissingImports]

    corpus = trial.folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(trial.seeds):
        (corpus / str(number)).write_bytes(content)

    def one(content: bytes) -> None:
        if time.monotonic() > until:
            finish()
        trial.feed(content)

    def mutator(content: bytes, most: int, seed: int) -> bytes:
        other = random.Random(seed)
        return changed(content, other)[:most] if other.random() < 0.5 else atheris.Mutate(content, most)

    flags = [f"-max_len={MOST_BYTES}", f"-seed={draw.randrange(1, 1 << 31)}", "-verbosity=0", "-print_final_stats=0"]
    flags += ["-rss_limit_mb=0", "-timeout=600", "-detect_leaks=0", "-handle_abrt=0", "-handle_segv=0"]
    atheris.Setup(["fuzz", *flags, str(corpus)], one, custom_mutator=mutator)
    atheris.Fuzz()


def forked(name: str, seconds: float, keep: Path, seed: int, guide: bool) -> dict[str, Any]:
    """One reader's row, of a process of its own; a crash or a hang is a failure as well."""
    with tempfile.TemporaryDirectory() as place:
        said = Path(place) / "row.json"
        child = os.fork()
        if not child:
            _child(name, seconds, Path(place), keep, seed, guide, said)
        until = time.monotonic() + seconds + 60
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > until:
                os.kill(child, signal.SIGKILL)
                ended = os.waitpid(child, 0)
                break
            time.sleep(0.05)
        if said.is_file():
            return json.loads(said.read_text())
        last = next(iter(sorted(Path(place).glob("*/*"), key=lambda path: -path.stat().st_mtime_ns)), None)
        kept = keep / f"{name.replace(' ', '-')}-crash"
        keep.mkdir(parents=True, exist_ok=True)
        if last is not None and last.is_file():
            shutil.copy(last, kept)
        what = f"ended by signal {os.WTERMSIG(ended[1])}" if os.WIFSIGNALED(ended[1]) else f"ended with {ended[1]}"
        return {"reader": name, "inputs": 0, "read": 0, "refused": 0, "failures": {what: str(kept)}}


def _child(name: str, seconds: float, place: Path, keep: Path, seed: int, guide: bool, said: Path) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)  # libFuzzer's and the decoders' own words
    os.environ["HF_DATASETS_CACHE"] = str(place / "cache")
    draw, trial = random.Random(f"{seed} {name}"), Trial(name, place, keep)

    def finish() -> None:
        partial = said.with_suffix(".partial")
        partial.write_text(json.dumps(trial.row()))
        partial.rename(said)
        os._exit(0)

    try:
        until = time.monotonic() + seconds
        guided(trial, until, draw, finish) if guide else mutated(trial, until, draw)
        finish()
    except BaseException:
        Path(place / "error.txt").write_text(traceback.format_exc())
        os._exit(3)


@contextlib.contextmanager
def instrumented(guide: bool) -> Iterator[None]:
    """What of colmrl is imported in here tells libFuzzer where it has been."""
    if not guide:
        yield
        return
    import atheris  # pyright: ignore[reportMissingImports]

    with atheris.instrument_imports(include=["colmrl"], enable_loader_override=False):
        yield


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300, help="of all readers together")
    parser.add_argument("--readers", default="", help="some of them, between commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="without atheris")
    parser.add_argument("--work", type=Path, default=Path("outputs/fuzz"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fuzz.json"))
    arguments = parser.parse_args(argv)
    import importlib.util

    sys.path.insert(0, str(Path(__file__).parents[1]))
    guide = not arguments.plain and importlib.util.find_spec("atheris") is not None
    with instrumented(guide):
        from fuzz_readers import READERS
    import datasets

    from colmrl import provenance

    datasets.disable_progress_bars()
    logging.disable(logging.CRITICAL)
    names = arguments.readers.split(",") if arguments.readers else list(READERS)
    rows = []
    for name in names:
        rows.append(forked(name, arguments.seconds / len(names), arguments.work, arguments.seed, guide))
        print(rows[-1], flush=True)
    total = {key: sum(row[key] for row in rows) for key in ("inputs", "read", "refused")}
    total["failures"] = sum(len(row["failures"]) for row in rows)
    print(total)
    engine = "atheris" if guide else "mutation alone"
    about = {"command": provenance.command(), "commit": provenance.commit(), "machine": f"{os.cpu_count()} cores"}
    content = {**about, "engine": engine, "seconds": arguments.seconds, "seed": arguments.seed, **total, "rows": rows}
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")
    sys.exit(1 if total["failures"] else 0)


if __name__ == "__main__":
    main()
