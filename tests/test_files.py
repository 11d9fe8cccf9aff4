"""One process at a time writes a place, and a lock ends with its process, however that ends."""

import os
import signal
import subprocess
import sys

import pytest

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
