"""encode --ray: the workers of a Ray cluster encode what is missing."""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from colmrl.cluster import Worker
from colmrl.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'ray[data]'")
def test_rays_workers_write_the_store_of_one_and_go_on_where_a_kill_left_it(store, checkpoint, sample, tmp_path):
    made = {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*.npy"))}
    out = tmp_path / "store"
    asked = ["--checkpoint", checkpoint, "--data", sample / "train", "--out", out, "encode.shard_size=10"]
    command = [sys.executable, ROOT / "encode.py", *asked, "--ray", "local", "device=cpu", "threads=1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for killed in (True, False):
        whole = [*command, f"encode.ray_workers={1 if killed else 2}"]
        with subprocess.Popen(list(map(str, whole)), stderr=subprocess.PIPE, text=True, env=environment) as running:
            while killed and running.poll() is None and not list(out.glob("documents/multi-*.offsets.npy")):
                time.sleep(0.05)
            if killed:
                running.kill()
            said = running.communicate(timeout=300)[1]
        there = {name for name in made if (out / name).is_file()}
        if killed:
            assert running.returncode < 0 and 0 < len(there) < len(made), said
            assert list(out.rglob("plan.json"))
    assert running.returncode == 0, said
    assert made == {name: (out / name).read_bytes() for name in made} and not list(out.rglob("plan.json"))


def test_what_is_wrong_on_a_worker_is_said_with_its_machine(tmp_path):
    def opened():
        raise InputError("shard 3: no such file: mend it")

    (said,) = Worker(opened, str(tmp_path), ["a"])({"item": [0]})["error"]
    assert said.startswith("shard 3: no such file: mend it (on ")
    (said,) = Worker(opened, str(tmp_path / "absent"), ["a"])({"item": [0]})["error"]
    assert "No such file" in said and "absent" in said


def test_a_worker_opens_its_work_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done, opens = [], []
    worker = Worker(lambda: opens.append(1) or done.append, str(tmp_path), ["a", "b", "c"])
    assert [worker({"item": [place]})["error"] for place in (2, 0)] == [[""], [""]]
    assert done == ["c", "a"] and opens == [1]
