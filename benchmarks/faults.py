"""Faults in every stage, each followed by the same command again: nothing may be lost, and what is left must equal what
an undisturbed run leaves, byte by byte.

    make test-faults                             # = python benchmarks/run.py faults --times 25

A stage is what its command runs, in a process forked from this one, on a tiny InternVL and generated pictures:
none         run once more: the same bytes for every artefact
two workers  train.workers=2, encode.workers=2: the same bytes again
killed       kill -9 at a random moment, and once more while it goes on
interrupted  SIGINT at a random moment: exit code 130, or 0 where it had just finished
two at once  a second process on the same folder: one line that names who writes there
full disk    a file system of a random size, too small (a mount; else a limit on file sizes): one line that says so
read only    killed, then the file system is read-only: one line that says so (left out where nothing may be mounted)
clock        killed; then the clock is 40 years back, another time zone and locale; what is there is from 1971 and 2100
damaged      a file of what the stage reads (of train and loop: of what a kill left) is cut short: one line that names
             it, or it is made anew; with it whole again, the same command

Writes benchmarks/results/faults.json: of each stage and fault how many were injected, survived and lost; `said`: how
often the process ended with a line of its own rather than a traceback.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from faults_machine import can_mount, limit, other_clock, written
from faults_stages import MORE, VARYING, Stage, stages_of

FAULTS = ("none", "two workers", "killed", "interrupted", "two at once", "full disk", "read only", "clock")
FAULTS += ("damaged",)


@dataclass
class Counts:
    injected: int = 0
    survived: int = 0
    said: int = 0
    lost: list[str] = field(default_factory=list)


class Bench:
    """One stage and its folder, with what an undisturbed run leaves. `mounts`: whether it may be a small disk."""

    def __init__(self, stage: Stage, out: Path, mounts: bool, draw: random.Random):
        self.stage, self.out, self.mounts, self.draw = stage, out, mounts, draw
        self.said = out.with_name("said.txt")
        out.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        code = os.waitstatus_to_exitcode(os.waitpid(self.start(), 0)[1])
        assert code == 0, self.said.read_text()
        self.seconds, self.whole = time.monotonic() - started, stage.contents(out)
        self.bytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        assert self.whole
        shutil.rmtree(out)

    def start(self, before: Callable[[], object] | None = None) -> int:
        """The stage in a process of its own: exit code 0, 2 with a line, 130 with a line; 1 with a traceback."""
        child = os.fork()
        if child:
            return child
        os.dup2(os.open(self.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), 2)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)  # whatever a test runner has put there
        from typer import Exit

        from colmrl.cli.common import friendly

        code = 1
        try:
            if before is not None:
                before()
            friendly(self.stage.run)(self.out)
            code = 0
        except Exit as error:
            code = error.exit_code
        except BaseException:
            sys.excepthook(*sys.exc_info())
        os._exit(code)

    def ended(self, child: int) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def disturb(self, signal_number: int) -> int:
        child = self.start()
        time.sleep(self.draw.uniform(0, self.seconds))
        os.kill(child, signal_number)
        return self.ended(child)

    def inject(self, fault: str) -> bool:
        """Whether the process ended as it should; what it leaves is looked at by `recovers`."""
        match fault:
            case "none":
                return self.ended(self.start()) == 0
            case "two workers":
                return self.ended(self.start(lambda: MORE.extend(["train.workers=2", "encode.workers=2"]))) == 0
            case "killed":
                codes = [self.disturb(signal.SIGKILL) for _ in range(2)]  # the second goes on
                return all(code in (0, 2, -9) for code in codes)
            case "interrupted":
                return self.disturb(signal.SIGINT) in (0, 130)
            case "two at once":
                return self._two()
            case "full disk":
                return self._full()
            case "read only":
                self._mount("1g")
                self.disturb(signal.SIGKILL)
                self._mount("ro,remount")
                code = self.ended(self.start())
                self._mount("rw,remount")
                return code == 2 or self._was_done()
            case "damaged":
                return self._damaged()
            case _:
                self.disturb(signal.SIGKILL)
                for path in self.out.rglob("*"):
                    os.utime(path, (self.draw.choice((3e7, 4e9)),) * 2)
                return self.ended(self.start(other_clock)) == 0 or self._was_done()

    def _two(self) -> bool:
        one = self.start()
        time.sleep(self.draw.uniform(0, self.seconds / 2))
        other = self.start()
        codes = sorted((self.ended(other), self.ended(one)))
        text = self.said.read_text()
        return codes in ([0, 0], [0, 2]) and (codes == [0, 0] or "writes here" in text or "exists" in text)

    def _full(self) -> bool:
        size = int(self.draw.uniform(0.05, 0.9) * self.bytes)
        if self.mounts:
            self._mount(f"size={max(4096, size)}")
            code = self.ended(self.start())
            self._mount("size=1g,remount")
        else:
            code = self.ended(self.start(lambda: limit(max(map(len, self.whole.values())) // 2)))
        return code == 2

    def _damaged(self) -> bool:
        if self.stage.reads is None:
            self.disturb(signal.SIGKILL)
        files = [path for path in sorted((self.stage.reads or self.out).rglob("*")) if path.is_file()]
        files = [path for path in files if path.stat().st_size and path.name not in VARYING]
        if not files:
            return True  # killed before it wrote anything
        cut, done = self.draw.choice(files), self._was_done()
        whole = cut.read_bytes()
        cut.write_bytes(whole[: self.draw.randrange(len(whole))])
        code, text = self.ended(self.start()), self.said.read_text()
        if code or done or self.stage.reads is not None:  # what is done is not read again
            cut.write_bytes(whole)
        named = code == 2 and any(said in text for said in (cut.name, "exists already", "its checkpoint back"))
        if code and not named:
            print(f"{cut.name}, cut: {code}: {text[-400:]}", file=sys.stderr)
        return named or code == 0

    def _was_done(self) -> bool:
        """A stage that had finished refuses to write over it, or had nothing left to write."""
        return self.stage.contents(self.out) == self.whole

    def _mount(self, options: str) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        given = options if "size" in options or "remount" in options else f"size={options}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", given, "none", self.out], check=True)

    def recovers(self) -> str:
        """What is not as it should be after the same command again, "" where all is."""
        child_code = self.ended(self.start())
        text = self.said.read_text() if self.said.exists() else ""
        if child_code and "exists already" not in text:
            return f"again: {child_code}: {text[-300:]}"
        found = self.stage.contents(self.out)
        return ", ".join(sorted(name for name in {*found, *self.whole} if found.get(name) != self.whole.get(name)))

    def clear(self) -> None:
        if os.path.ismount(self.out):
            subprocess.run(["umount", self.out], check=True)
        shutil.rmtree(self.out, ignore_errors=True)


def tried(bench: Bench, fault: str, times: int, until: float) -> Counts:
    counts = Counts()
    for _ in range(times):
        if time.monotonic() > until:
            break
        counts.injected += 1
        counts.said += bench.inject(fault)
        lost = bench.recovers()
        counts.survived += not lost
        counts.lost += [lost] if lost else []
        bench.clear()
    return counts


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=25, help="kill -9 a stage; of each other fault a fifth")
    parser.add_argument("--stages", default="train,encode,index,mine,eval,loop")
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--minutes", type=float, default=600, help="then no more is injected")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("outputs/faults"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/faults.json"))
    arguments = parser.parse_args(argv)
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import logging

    from colmrl import provenance

    provenance.commit()  # once, for every process
    logging.disable(logging.WARNING)
    until = time.monotonic() + 60 * arguments.minutes
    work, mounts, draw = arguments.work.resolve(), can_mount(), random.Random(arguments.seed)
    shutil.rmtree(work, ignore_errors=True)
    stages, rows = stages_of(work), []
    for name in arguments.stages.split(","):
        if time.monotonic() > until:
            print(f"{name}: left out: --minutes are over")
            continue
        bench = Bench(stages[name], work / "place" / name, mounts, draw)
        for fault in arguments.faults.split(","):
            if fault == "read only" and not mounts:
                print(f"{name}: read only: left out: nothing may be mounted here")
                continue
            counts = tried(bench, fault, arguments.times if fault == "killed" else max(1, arguments.times // 5), until)
            if counts.injected:
                rows.append({"stage": name, "fault": fault, **vars(counts)})
                print(rows[-1], flush=True)
                written(arguments.out, rows, mounts)
    total = written(arguments.out, rows, mounts)
    print(total)
    sys.exit(1 if total["lost"] or total["said"] < total["injected"] else 0)


if __name__ == "__main__":
    main()
