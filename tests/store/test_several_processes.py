"""torchrun encode.py: processes share the shards."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_processes_write_the_store_of_one(store, checkpoint, sample, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    asked = ["--checkpoint", checkpoint, "--data", sample / "train", "--out", tmp_path / "store"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [*torchrun, ROOT / "encode.py", *asked, "encode.shard_size=10", "device=cpu"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("store: ") == 1 and done.stdout.count("store") == 1  # said once
    made = {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*.npy"))}
    assert made == {name: (tmp_path / "store" / name).read_bytes() for name in made}
    assert not list((tmp_path / "store").rglob("plan.json"))
