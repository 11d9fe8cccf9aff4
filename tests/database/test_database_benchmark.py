"""The benchmark runs, at a size of which the times mean nothing."""

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_the_database_benchmark_kills_goes_on_and_asks(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    options = ["--quick", "--cases", "fp32", "--queries", "3", "--work", str(tmp_path / "work")]
    importlib.import_module("database").main([*options, "--out", str(tmp_path / "found.json")])
    rows = {row["view"]: row for row in json.loads((tmp_path / "found.json").read_text())["rows"]}
    assert set(rows) == {"single@128", "multi@128", "single@128/100+multi@128"}
    for row in rows.values():
        assert 0 < row["after_kill"] < row["documents"] == 600 and row["bytes"] > 600 * 49 * 512
    assert rows["multi@128"]["recall_at_10"] == 1 and rows["multi@128"]["difference"] < 1e-6
