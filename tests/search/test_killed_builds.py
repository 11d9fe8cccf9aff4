"""A build that is killed at any moment leaves no index behind, and the same bytes when it is run again."""

import os
import random
import shutil
import signal
import time

import pytest
from stores import clustered, write_store

from colmrl.configure import load_config
from colmrl.search import building
from colmrl.view import View


def killed(build, after_s=None):
    """Run `build` in a fork that is killed, from outside after some seconds or by itself."""
    child = os.fork()
    if not child:
        try:
            build()
        finally:
            os._exit(0)
    if after_s is not None:
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def contents(folder):
    return {
        path.name: path.read_bytes() for path in folder.rglob("*") if path.name != "measured.json" and path.is_file()
    }


@pytest.mark.parametrize(("view", "kind"), [("single@16", "hnsw"), ("multi@16", "rabitq")])
def test_a_killed_build_run_again_equals_one_that_was_not(tmp_path, monkeypatch, view, kind):
    store = write_store(tmp_path / "store", clustered(0, 200, 10))
    config = load_config(None, ["threads=1", "index.gpu=false", f"index.type={kind}"])
    out, view = tmp_path / "out", View.parse(view)
    folder = out / f"{view.slug}-{kind}"

    def build():
        building.build_indexes(config, store, [view], out)

    started = time.perf_counter()
    build()
    whole_s = time.perf_counter() - started
    expected = contents(out)
    assert set(expected) == {"index.faiss", "manifest.json"}
    shutil.rmtree(out)
    for last in ("new_index", "train", "write_index", "_measure", "write_facts"):
        with monkeypatch.context() as patched:
            patched.setattr(building, last, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            assert killed(build) == (last != "train" or kind == "rabitq")
        if folder.exists():  # a graph is not trained
            assert contents(out) == expected
            shutil.rmtree(out)
    rng = random.Random(0)
    for _ in range(5):
        killed(build, after_s=rng.uniform(0, whole_s))
        assert not folder.exists() or contents(out) == expected
    build()
    assert contents(out) == expected
