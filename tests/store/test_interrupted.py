"""Encoding that is killed, or has no room, in a process of its own."""

import os
import random
import resource
import shutil
import signal
import time

import pytest

from colmrl.encoding import encode
from colmrl.errors import InputError
from colmrl.store import EmbeddingStore


def forked(work):
    """Start `work()` in a copy of this process, which exits with what it gives."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os._exit(work() or 0)
    finally:
        os._exit(99)


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.slow
def test_encoding_that_is_killed_at_any_moment_ends_in_the_same_bytes(store, checkpoint, settings, sample, tmp_path):
    out, config = tmp_path / "store", settings(tmp_path)
    start = time.monotonic()
    encode(config, checkpoint, sample / "train", out)
    whole, seconds = files(out), time.monotonic() - start
    draw, unfinished = random.Random(0), 0
    for _ in range(4):
        shutil.rmtree(out)
        for _ in range(2):  # the second goes on with what the first left
            pid = forked(lambda: encode(config, checkpoint, sample / "train", out) and 0)
            time.sleep(draw.uniform(0, seconds / 2))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        unfinished += not (out / "documents/manifest.json").exists()
        encode(config, checkpoint, sample / "train", out)
        assert files(out) == whole
    assert unfinished


def test_a_full_disk_is_one_clear_error_and_no_half_file(store, checkpoint, settings, sample, tmp_path):
    """The kernel refuses to let a file grow beyond 20 kB."""
    out = tmp_path / "store"

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            encode(settings(tmp_path), checkpoint, sample / "train", out)
        except InputError as error:
            return 7 if "multi-00000.npy: cannot be written (File too large): free space" in str(error) else 8

    assert os.waitstatus_to_exitcode(os.waitpid(forked(work), 0)[1]) == 7
    assert not list(out.rglob("*.partial")) and not (out / "documents/multi-00000.npy").exists()
    with pytest.raises(InputError, match=r"not finished: run encode.py again"):
        EmbeddingStore(out / "documents")
    encode(settings(tmp_path), checkpoint, sample / "train", out)
    made = {name: content for name, content in files(out).items() if name.endswith(".npy")}
    assert made == {name: content for name, content in files(store).items() if name.endswith(".npy")}
