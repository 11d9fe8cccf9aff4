"""Ctrl-C: one line, exit code 130, no process left, and the same command goes on to what it would have written."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import call

from colmrl.cli.main import main_app
from colmrl.processes import data_worker
from colmrl.store import EmbeddingStore
from colmrl.view import View

ROOT = Path(__file__).parents[2]


def of_group(group):
    """Processes that are left of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


def interrupted(command, ready, alone=False, timeout_s=240):
    """Run until `ready()`, then SIGINT to all of it (as a terminal does) or to its first process: code and stderr."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    started = subprocess.Popen(
        list(map(str, command)), env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until = time.monotonic() + timeout_s
    while not ready() and started.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    (os.kill if alone else os.killpg)(started.pid, signal.SIGINT)
    _, said = started.communicate(timeout=timeout_s)
    until = time.monotonic() + 15
    while (left := of_group(started.pid)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left
    return started.returncode, said


@pytest.mark.slow
def test_encoding_with_data_workers_is_interrupted_and_goes_on(store, checkpoint, sample, tmp_path):
    out, small = tmp_path / "store", ["encode.shard_size=2", "device=cpu"]
    asked = ["--checkpoint", checkpoint, "--data", sample / "train", "--out", out]
    command = [sys.executable, ROOT / "encode.py", *asked, *small, "encode.workers=1"]
    code, said = interrupted(command, lambda: list(out.glob("documents/multi-00001.npy")))
    assert code == 130 and said.splitlines()[-1] == "interrupted: the same command goes on where it stopped"
    assert "Traceback" not in said and (out / "documents/plan.json").is_file()
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("single-*.npy")}
    assert call(main_app, "encode", *asked, *small).exit_code == 0
    assert kept and all(path.stat().st_mtime_ns == changed for path, changed in kept.items())
    whole, view = EmbeddingStore(store / "documents"), View.parse("single@128")
    made = EmbeddingStore(out / "documents")
    assert made.ids == whole.ids
    assert np.allclose(np.concatenate(list(made.single(view))), np.concatenate(list(whole.single(view))), atol=1e-5)


@pytest.mark.slow
def test_training_is_interrupted_and_says_what_it_goes_on_from(settings, sample, tiny, tmp_path):
    asked = ["--data", sample / "train", "--output", tmp_path / "run", f"model.backbone={tiny('internvl')}"]
    asked += ["train.max_steps=400", "train.save_steps=2", "train.workers=1", "device=cpu", "train.batch_size=4"]
    code, said = interrupted(
        [sys.executable, ROOT / "train.py", *asked],
        lambda: list(tmp_path.glob("run/trainer/checkpoint-*/trainer_state.json")),
        alone=True,
    )
    assert code == 130 and "interrupted: the same command goes on from the newest resume point" in said
    assert "Traceback" not in said and not (tmp_path / "run/checkpoint").exists()


@pytest.mark.slow
def test_of_two_processes_none_is_left_and_the_store_goes_on(checkpoint, sample, tmp_path):
    out, torchrun = tmp_path / "store", [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    asked = ["--checkpoint", checkpoint, "--data", sample / "train", "--out", out, "encode.shard_size=1", "device=cpu"]
    command = [*torchrun, "--nproc-per-node", "2", ROOT / "encode.py", *asked]
    code, said = interrupted(command, lambda: list(out.glob("documents/multi-*.npy")))
    assert code != 0 and said.count("interrupted: the same command goes on where it stopped") == 1
    assert not list(out.glob("**/.lock")) and (out / "documents/plan.json").is_file()


def test_an_interrupt_is_said_whatever_error_it_ends_in(monkeypatch):
    def worker_died(*_, **__):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise RuntimeError("DataLoader worker exited unexpectedly") from None

    before, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
    monkeypatch.setattr("colmrl.cli.search.configured", worker_died)
    done = call(main_app, "search", "--store", "nowhere", "--query", "a")
    assert done.exit_code == 130 and done.stderr.splitlines() == ["interrupted: give the same command again"]
    assert signal.getsignal(signal.SIGINT) == before and sys.unraisablehook is hook


def test_an_interrupt_that_python_passes_over_is_not_lost(monkeypatch):
    class Passing:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    def command(*_, **__):
        Passing()
        time.sleep(20)

    monkeypatch.setattr("colmrl.cli.search.configured", command)
    done = call(main_app, "search", "--store", "nowhere", "--query", "a")
    assert done.exit_code == 130 and done.stderr.splitlines() == ["interrupted: give the same command again"]


def test_a_data_worker_whose_asker_is_gone_says_nothing_and_other_errors_are_said(monkeypatch):
    said = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, *_: said.append(kind))
    data_worker(0)
    for error in (ConnectionResetError(104, "by peer"), BrokenPipeError(), EOFError(), ValueError("wrong")):
        sys.excepthook(type(error), error, None)
    assert said == [ValueError]
