"""A short run of benchmarks/fuzz.py: whatever bytes a reader is given, it reads them or says what is wrong."""

import importlib
import random
import time
from pathlib import Path

import pytest

from colmrl import files
from colmrl.data.jsonl import read_rows
from colmrl.errors import InputError
from colmrl.reranking.runs import read_run

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
def test_no_bytes_make_a_reader_raise_anything_but_an_input_error(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    fuzz, readers = (importlib.import_module(name) for name in ("fuzz", "fuzz_readers"))
    failures, read = {}, 0
    for name in readers.READERS:
        trial = fuzz.Trial(name, tmp_path / "trials", tmp_path / "kept")
        fuzz.mutated(trial, time.monotonic() + 20, random.Random(name), most=12)
        assert trial.counts["read"], f"{name}: nothing was read, its seeds included"
        failures |= {(name, what): kept for what, kept in trial.failures.items()}
        read += trial.counts["refused"]
    assert not failures and read > 100


def test_the_fuzzer_sees_what_is_no_input_error(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    fuzz, readers = (importlib.import_module(name) for name in ("fuzz", "fuzz_readers"))

    def read(path):
        if b"x" in path.read_bytes():
            files.digest(path.with_name("not there"))
        raise InputError("refused")

    monkeypatch.setitem(readers.READERS, "made up", readers.Reader("f", (b"axb",), read))
    trial = fuzz.Trial("made up", tmp_path, tmp_path / "kept")
    fuzz.mutated(trial, time.monotonic() + 10, random.Random(0), most=30)
    (what,) = trial.failures
    assert what.startswith("FileNotFoundError at files.py:") and trial.counts["refused"] > 0
    assert b"x" in Path(trial.failures[what]).read_bytes()


def test_a_line_longer_than_any_record_is_refused_before_it_is_held(tmp_path, monkeypatch):
    path = tmp_path / "corpus.jsonl"
    with path.open("wb") as file:
        file.write(b'{"_id": "a"}\n')
        file.truncate(8 << 30)  # sparse: eight gigabytes without a line break
    with pytest.raises(InputError, match=r"corpus\.jsonl:2: line: longer than 64 MiB: write one record a line"):
        list(read_rows(path, lambda row: row))
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 20)
    run = tmp_path / "run"
    run.write_text("q Q0 a 1 0.5 tag\n" + "q" * 30 + " Q0 a 1 0.5 tag\n")
    with pytest.raises(InputError, match="run:2: line: longer than"):
        list(read_run(run))
