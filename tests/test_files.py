"""One process at a time writes a place, and a lock ends with its process, however that ends."""

import os
import re
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from colmrl import files
from colmrl.errors import InputError
from colmrl.files import locked, new_folder, write_text

HOLD = """
import os, sys, time
from pathlib import Path
from colmrl.files import locked
with locked(Path(sys.argv[1]), beside=sys.argv[2] == "beside"):
    child = os.fork()  # as a data worker: it does not hold what its parent held
    if not child:
        time.sleep(60)
    print(child, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["within", "beside"])
def test_another_process_is_refused_until_the_first_is_killed(tmp_path, kind):
    place = tmp_path / "runs" / "a"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, place, kind], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        said = rf"runs/a: process {holder.pid} on .* writes here: .*another --out"
        with pytest.raises(InputError, match=said), locked(place, kind == "beside"):
            raise AssertionError("two at once")
        holder.kill()
        holder.wait()
        with locked(place, kind == "beside"):  # though its child lives
            write_text(place if kind == "beside" else place / "file", "content")
    finally:
        holder.kill()
        os.kill(child, signal.SIGKILL)
        holder.stdout.close()
    kept = [path.name for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert kept == (["a"] if kind == "beside" else ["file"])  # and no lock


def test_one_process_cannot_write_a_place_twice_and_leaves_no_empty_folder(tmp_path):
    with locked(tmp_path / "a" / "b"):
        with pytest.raises(InputError, match="this process writes here"), locked(tmp_path / "a" / "b"):
            raise AssertionError
        with locked(tmp_path / "a" / "c", beside=True):
            pass
    assert not list(tmp_path.iterdir())


def test_a_new_folder_is_not_taken_from_whoever_writes_it(tmp_path):
    @new_folder
    def write(folder):
        (folder / "one").write_text("1")
        with pytest.raises(InputError, match="this process writes here"):
            write(tmp_path / "new")
        (folder / "two").write_text("2")

    assert sorted(path.name for path in write(tmp_path / "new").iterdir()) == ["one", "two"]
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_where_the_file_system_has_no_locks_it_is_said(tmp_path, monkeypatch, caplog):
    def without(*_):
        raise OSError(files.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "lockf", without)
    with locked(tmp_path / "a"):
        assert "cannot be locked (No locks available): see that nothing else writes here" in caplog.text


def test_what_breaks_off_leaves_no_half_file(tmp_path):
    def broken_off(partial):
        partial.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_whole(tmp_path / "file", broken_off)
    assert not list(tmp_path.iterdir())


def _within_a_small_disk(write):
    """A process whose files may have 4 KiB: what it says of `write`."""
    out, into = os.pipe()
    if not (child := os.fork()):
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            write()
            said = "written"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(into, said.encode())
        os._exit(0)
    os.close(into)
    os.waitpid(child, 0)
    with os.fdopen(out) as pipe:
        return pipe.read()


@pytest.mark.parametrize(
    "save",
    [
        lambda path: torch.save(torch.ones(10_000), path),
        lambda path: save_file({"a": torch.ones(10_000)}, path),
        lambda path: path.write_bytes(bytes(40_000)),
        lambda path: np.save(path, np.ones(10_000)),
    ],
    ids=["torch", "safetensors", "bytes", "numpy"],
)
def test_a_full_disk_is_said_whichever_library_writes(tmp_path, save):
    def within():
        with files.writing(tmp_path / "run"):
            save(tmp_path / "file.npy")

    said = _within_a_small_disk(within)
    says = r"InputError: .*/run: cannot be written \(.+\): free space, or choose another place"
    assert re.fullmatch(says, said), said


def test_the_file_that_is_full_is_named(tmp_path):
    full = OSError(28, "No space left on device", "/dev/shm/torch_1")
    with pytest.raises(InputError, match=r"^/dev/shm/torch_1: cannot be written \(No space"), files.writing(tmp_path):
        raise full


def test_what_else_goes_wrong_while_writing_is_not_taken_for_a_full_disk(tmp_path):
    asked = ValueError("8 examples were requested and 6 are there")
    for error in (FileNotFoundError(2, "No such file"), RuntimeError("shapes differ"), KeyError("a"), asked):
        with pytest.raises(type(error)), files.writing(tmp_path):
            raise error
