"""encode --ray: the workers of a Ray cluster encode what is missing."""

import importlib.util
from pathlib import Path

import pytest

from colmrl.cluster import Worker, share_out
from colmrl.encoding import encode
from colmrl.errors import InputError
from colmrl.store import StoreWriter


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'ray[data]'")
def test_rays_workers_go_on_to_the_store_of_one(store, checkpoint, sample, settings, tmp_path, monkeypatch):
    made = {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*.npy"))}
    out, write, calls = tmp_path / "store", StoreWriter.write, []

    def interrupted(writer, number, arrays):
        if calls:
            raise KeyboardInterrupt
        calls.append(number)
        write(writer, number, arrays)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(StoreWriter, "write", interrupted)
        encode(settings(Path("unused")), checkpoint, sample / "train", out)
    first = {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")}
    assert 0 < len(first) < len(made) and list(out.rglob("plan.json"))
    with_ray = settings(Path("unused"), "encode.ray=local", "encode.ray_workers=2")
    encode(with_ray, checkpoint, sample / "train", out)
    assert made == {name: (out / name).read_bytes() for name in made} and not list(out.rglob("plan.json"))
    assert first == {path: path.stat().st_mtime_ns for path in first}
    encode(settings(Path("unused"), "encode.ray=nowhere:1"), checkpoint, sample / "train", out)  # nothing to start for


def test_what_is_wrong_on_a_worker_is_said_with_its_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the worker goes; and back

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


@pytest.mark.parametrize("address", ["127.0.0.1:1", "here", "ray://127.0.0.1:1"])
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'ray[data]'")
def test_a_cluster_that_does_not_answer_is_said_at_once(address):
    with pytest.raises(InputError, match=f"encode.ray: {address}: no cluster answers .*: start one"):
        share_out(lambda: print, ["a"], address)
